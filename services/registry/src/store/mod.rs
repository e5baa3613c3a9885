//! What the registry keeps, and every query on it. Nothing above this module
//! knows of SQL.

mod api_keys;
mod entity;
mod error;
mod join_tokens;
#[cfg(test)]
mod members_tests;
mod migrations;
mod revocations;
mod settings;
mod signing_keys;
#[cfg(test)]
mod tests;
mod users;
mod wolf_liveness;
mod wolf_news;
mod wolves;

use std::future::Future;
use std::pin::Pin;

use sea_orm::{DatabaseConnection, DatabaseTransaction};
use wolfpack_store::{DatabaseConfig, Store};
use wolfpack_types::{Fault, Reason, page};

use crate::domain::pepper::Pepper;
use crate::domain::time::Micros;

pub(crate) use error::Error;
pub(crate) use migrations::Migrator;

pub(crate) use api_keys::{KeyRow, KeyScope, KnownKey, NewKey, invalid as invalid_key};
pub(crate) use entity::project::Model as ProjectRow;
pub(crate) use entity::revocation::Model as RevocationRow;
pub(crate) use entity::user::Model as UserRow;
pub(crate) use entity::wolf::Model as WolfRow;
pub(crate) use join_tokens::{NewWolf, invalid as invalid_join_token};
pub(crate) use revocations::{Revoked, role_row_id};
pub(crate) use signing_keys::SigningKeyRow;
pub(crate) use users::{Idempotency, ProjectScope};
pub(crate) use wolf_liveness::{Beat, Census, Measurement};
pub(crate) use wolf_news::News;
pub(crate) use wolves::{Registration, WolfScope};

/// The revisions of wolves.
pub(crate) const WOLVES: &str = "wolves";
/// The revisions of revocations.
pub(crate) const REVOCATIONS: &str = "revocations";

type Result<T> = std::result::Result<T, Error>;
type Boxed<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

/// The registry's database.
#[derive(Clone)]
pub(crate) struct Database {
    store: Store,
    pepper: Pepper,
}

impl Database {
    /// Opens the database, brings its tables up to date and checks that the
    /// pepper is the one its hashes were made with.
    pub(crate) async fn open(config: &DatabaseConfig, pepper: Pepper) -> Result<Self> {
        let store = Store::open::<Migrator>(config).await?;
        let database = Self { store, pepper };
        database.check_pepper().await?;
        Ok(database)
    }

    fn conn(&self) -> &DatabaseConnection {
        self.store.conn()
    }

    /// The time of the database.
    pub(crate) async fn now(&self) -> Result<Micros> {
        Ok(self.store.now(self.conn()).await?.into())
    }

    /// The newest revision of a scope.
    pub(crate) async fn current_revision(&self, scope: &str) -> Result<i64> {
        Ok(wolfpack_store::revision::current(self.conn(), scope).await?)
    }

    /// Forgets request ids that no client retries any more.
    pub(crate) async fn purge_request_ids(&self) -> Result<u64> {
        let kept = std::time::Duration::from_secs(24 * 3600);
        Ok(wolfpack_store::idempotency::sweep(self.conn(), kept).await?)
    }

    /// Runs one transaction. It may run more than once, each time on a fresh
    /// copy of the arguments, so it has no effect but on the database.
    async fn tx<A, T, F>(&self, arguments: A, run: F) -> Result<T>
    where
        A: Clone + Send + Sync,
        T: Send,
        F: for<'c> Fn(Transaction<'c>, A) -> Boxed<'c, T> + Send + Sync,
    {
        self.store
            .tx(|tx| {
                let (store, arguments, run) = (self.store.clone(), arguments.clone(), &run);
                run(Transaction { tx, store }, arguments)
            })
            .await
    }
}

/// A running transaction.
struct Transaction<'c> {
    tx: &'c DatabaseTransaction,
    store: Store,
}

impl Transaction<'_> {
    /// The time of the database.
    async fn now(&self) -> Result<Micros> {
        Ok(self.store.now(self.tx).await?.into())
    }

    /// The next revision of a scope; readers see it when the transaction is
    /// committed, in order.
    async fn revision(&self, scope: &str) -> Result<i64> {
        Ok(wolfpack_store::revision::next(self.tx, scope).await?)
    }
}

/// A page of a list, by key.
pub(crate) struct Page<T> {
    /// The rows.
    pub(crate) rows: Vec<T>,
    /// The token of the next page; empty at the end.
    pub(crate) next: String,
}

/// Where a page begins and how long it is.
#[derive(Clone)]
pub(crate) struct PageRequest {
    after: Option<String>,
    size: u32,
    scope: String,
}

impl PageRequest {
    /// Reads what a client asked for; `scope` names the list and the caller.
    pub(crate) fn new(size: i32, token: &str, scope: String) -> std::result::Result<Self, Fault> {
        Ok(Self { after: page::decode(token, &scope)?, size: page::page_size(size), scope })
    }

    /// How many rows to read: one more than are sent tells whether more follow.
    fn limit(&self) -> u64 {
        u64::from(self.size) + 1
    }

    fn page<T>(&self, mut rows: Vec<T>, key: impl Fn(&T) -> &str) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        if rows.len() <= size {
            return Page { rows, next: String::new() };
        }
        rows.truncate(size);
        let next = rows.last().map(|row| page::encode(key(row), &self.scope)).unwrap_or_default();
        Page { rows, next }
    }
}

/// A row that was written by us does not read back.
fn damaged(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Fault::new(
        Reason::Internal,
        "an internal error occurred; try again, and tell the operator if it stays",
    )
    .with("damaged", what)
    .caused_by(error)
    .into()
}

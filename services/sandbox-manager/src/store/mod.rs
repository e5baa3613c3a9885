//! What the manager keeps, and every query on it. Nothing above this module
//! knows of SQL.

mod changes;
mod clock;
mod create;
mod entity;
mod error;
mod list;
mod migration;
mod ownership;
mod sandbox;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait as _, DatabaseConnection, DatabaseTransaction, EntityTrait as _, QueryFilter as _,
};
use wolfpack_store::{DatabaseConfig, Store, revision};
use wolfpack_types::{ProjectId, SandboxId};

use entity::sandbox::{Column, Entity};

pub(crate) use changes::Removed;
use clock::DatabaseClock;
pub(crate) use error::{Error, not_found};
pub(crate) use list::ListQuery;
pub(crate) use sandbox::{Asked, Owner, Sandbox, api_state, timestamp};

/// The one scope of revisions: they order every write of the service.
const REVISIONS: &str = "sandboxes";

type Result<T> = std::result::Result<T, Error>;
type Boxed<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

/// The manager's database.
#[derive(Clone)]
pub(crate) struct Sandboxes {
    store: Store,
    clock: Arc<DatabaseClock>,
    /// Every write steps the one counter of revisions, so writes that run side
    /// by side only conflict: within a process they queue instead.
    writer: Arc<tokio::sync::Semaphore>,
}

impl Sandboxes {
    /// Opens the database and brings its tables up to date.
    ///
    /// # Errors
    /// When it cannot be reached or a migration fails.
    pub(crate) async fn open(config: &DatabaseConfig) -> Result<Self> {
        let store = Store::open::<migration::Migrator>(config).await?;
        let clock = Arc::new(DatabaseClock::default());
        clock.observe(store.now(store.conn()).await?);
        Ok(Self { store, clock, writer: Arc::new(tokio::sync::Semaphore::new(1)) })
    }

    fn conn(&self) -> &DatabaseConnection {
        self.store.conn()
    }

    /// The time of the database, now, without asking it.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Runs one transaction. It may run more than once, each time on a fresh
    /// copy of the arguments, so it has no effect but on the database.
    async fn tx<A, T, F>(&self, arguments: A, run: F) -> Result<T>
    where
        A: Clone + Send + Sync,
        T: Send,
        F: for<'c> Fn(Transaction<'c>, A) -> Boxed<'c, T> + Send + Sync,
    {
        // The semaphore is never closed.
        let _turn = self.writer.acquire().await.ok();
        self.store
            .tx(|tx| {
                let (this, arguments, run) = (self.clone(), arguments.clone(), &run);
                run(Transaction { tx, this }, arguments)
            })
            .await
    }

    /// One sandbox; `None` when there is no row.
    pub(crate) async fn get(&self, id: &SandboxId) -> Result<Option<Sandbox>> {
        read(Entity::find_by_id(id.as_str()).one(self.conn()).await?)
    }

    /// One sandbox of a project.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND` when there is none, also for another project's.
    pub(crate) async fn get_in(&self, project: &ProjectId, id: &SandboxId) -> Result<Sandbox> {
        let row = Entity::find_by_id(id.as_str())
            .filter(Column::Project.eq(project.as_str()))
            .one(self.conn())
            .await?;
        read(row)?.ok_or_else(|| not_found(&id.name()).into())
    }

    /// The revision of the newest write.
    pub(crate) async fn revision(&self) -> Result<i64> {
        Ok(revision::current(self.conn(), REVISIONS).await?)
    }
}

fn read(row: Option<entity::sandbox::Model>) -> Result<Option<Sandbox>> {
    Ok(row.map(Sandbox::from_row).transpose()?)
}

fn read_all(rows: Vec<entity::sandbox::Model>) -> Result<Vec<Sandbox>> {
    Ok(rows.into_iter().map(Sandbox::from_row).collect::<std::result::Result<_, _>>()?)
}

/// A running transaction.
struct Transaction<'c> {
    tx: &'c DatabaseTransaction,
    this: Sandboxes,
}

impl Transaction<'_> {
    /// The database's time; our own idea of it is set right by the way.
    async fn now(&self) -> Result<DateTime<Utc>> {
        let now = self.this.store.now(self.tx).await?;
        self.this.clock.observe(now);
        Ok(now)
    }

    /// The next revision. Readers see revisions in order: its row stays locked
    /// until the transaction ends.
    async fn next_revision(&self) -> Result<i64> {
        Ok(revision::next(self.tx, REVISIONS).await?)
    }
}

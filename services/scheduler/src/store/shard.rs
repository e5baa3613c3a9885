//! Leadership: the kit's lease of one key, on database time. Its epoch only
//! grows, and every ledger transaction renews it first, which locks the row:
//! nobody can take the leadership before that transaction has ended, and one
//! whose epoch is no longer the row's writes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::ConnectionTrait;
use wolfpack_store::lease::{self, Lease};
use wolfpack_store::{Engine, Store, StoreError};
use wolfpack_types::InstanceId;

/// The one shard of this version.
const SHARD: &str = "scheduler/shards/0";

/// A leadership that was won or renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub(super) lease: Lease,
    ttl: Duration,
}

impl Term {
    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.lease.epoch
    }

    /// The database's time when it was won or renewed.
    #[must_use]
    pub fn database_now(&self) -> DateTime<Utc> {
        self.lease.expires_at - self.ttl
    }

    /// Whether it still is the row's; locks the row until the transaction ends.
    pub(super) async fn guard<C: ConnectionTrait>(&self, tx: &C) -> Result<bool, StoreError> {
        Ok(lease::renew(tx, &self.lease, self.ttl).await?.is_some())
    }
}

/// The row of the shard.
#[derive(Debug, Clone)]
pub struct ShardStore {
    store: Store,
    holder: String,
    ttl: Duration,
}

impl ShardStore {
    /// The row, for one process.
    #[must_use]
    pub fn new(store: Store, process: &InstanceId, ttl: Duration) -> Self {
        let holder = match store.engine() {
            // A file lock lets one process at a time come here, and it must not
            // wait for its predecessor's time: they count as the same holder,
            // and the epoch grows all the same.
            Engine::Sqlite => "the holder of the file lock".to_owned(),
            Engine::Postgres => process.to_string(),
        };
        Self { store, holder, ttl }
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.store.engine()
    }

    /// Takes the leadership when it is free; the epoch grows.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn acquire(&self) -> Result<Option<Term>, StoreError> {
        let lease = lease::acquire(self.store.conn(), SHARD, &self.holder, self.ttl).await?;
        Ok(lease.map(|lease| Term { lease, ttl: self.ttl }))
    }

    /// Keeps a leadership; `None` when it is lost.
    ///
    /// # Errors
    /// When the database fails; it may be kept or not.
    pub async fn renew(&self, term: &Term) -> Result<Option<Term>, StoreError> {
        let lease = lease::renew(self.store.conn(), &term.lease, self.ttl).await?;
        Ok(lease.map(|lease| Term { lease, ttl: self.ttl }))
    }

    /// Gives a leadership up, so that another one need not wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self, term: &Term) -> Result<(), StoreError> {
        lease::release(self.store.conn(), &term.lease).await.map(drop)
    }
}

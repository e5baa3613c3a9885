//! The pool, the one transaction helper, the migrations runner, and what every
//! service keeps beside its own tables: idempotency records, leases and watch
//! revisions. One code base on two engines, SQLite and PostgreSQL.
//!
//! It is not an ORM layer: entities and queries belong to the services.
//!
//! ```no_run
//! # use wolfpack_store::{DatabaseConfig, Store, StoreError, KitMigrations, revision};
//! # async fn example() -> Result<(), StoreError> {
//! let store = Store::open::<KitMigrations>(&DatabaseConfig::memory()).await?;
//! let revision: i64 = store
//!     .tx(|tx| Box::pin(async move { Ok::<_, StoreError>(revision::next(tx, "wolves").await?) }))
//!     .await?;
//! # let _ = revision; Ok(()) }
//! ```

pub mod config;
mod engine;
pub mod error;
pub mod idempotency;
pub mod lease;
mod migration;
mod open;
pub mod revision;
mod sql;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
mod tx;

pub use config::DatabaseConfig;
pub use engine::Engine;
pub use error::StoreError;
pub use migration::KitMigrations;
pub use open::Store;

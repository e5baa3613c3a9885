//! Reservations and leadership on disk. Times are microseconds since the epoch
//! by the database's own clock, so that both engines compare them alike.

mod ledger;
mod migrations;
mod reservation;
mod reservation_device;
mod shard;

pub use ledger::{CommitError, LedgerStore};
pub use migrations::Migrator;
pub use shard::{ShardStore, Term};

#[cfg(test)]
mod tests;

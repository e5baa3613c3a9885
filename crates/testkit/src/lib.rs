//! For tests only: a relay that breaks connections on demand, a collector of
//! spans, a database per test, and a fleet of real processes.
//!
//! It is not a place for code that products need; nothing but tests depends on
//! it, and a contract test asserts so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

pub mod client;
pub mod dev_fleet;
pub mod fault_relay;
pub mod process;
pub mod process_fleet;
pub mod span_collector;
pub mod test_database;

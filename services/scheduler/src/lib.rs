//! Placement: which wolf, which GPUs, and the reservation that holds them.
//!
//! The fleet is fed by the registry's watch and kept in memory; one writer
//! decides, commits and only then answers; leadership is a lease whose epoch
//! every commit proves. `placement` and `domain` are pure.

mod app;
pub mod config;
pub mod domain;
pub mod fleet;
pub mod leadership;
pub mod metrics;
pub mod placement;
pub mod service;
pub mod store;
pub mod writer;

pub use app::{Addresses, App};
pub use config::Config;
pub use service::POLICY;

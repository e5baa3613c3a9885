//! Placement: which wolf, which GPUs, and the reservation that holds them.

pub mod domain;
pub mod placement;
pub mod store;
pub mod writer { pub const BATCH: usize = 512; }

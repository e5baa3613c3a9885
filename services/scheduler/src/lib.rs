//! Placement: which wolf, which GPUs, and the reservation that holds them.

pub mod domain;
pub mod placement;

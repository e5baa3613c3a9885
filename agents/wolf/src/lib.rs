//! The agent of a wolf: runs sandboxes on its Docker engine, reached only
//! through its tunnel.

pub mod admission;
pub mod engine;
pub mod sandbox;

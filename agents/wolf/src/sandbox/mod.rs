//! A sandbox on this wolf: its labels, its hardened container, its directory,
//! and the way to its agent's socket.

pub mod agent_socket;
pub mod directory;
pub mod labels;
mod spec;

pub use labels::{Goods, Identity};
pub use spec::{ContainerSpec, GpuAccess, Limits, Parts, is_loader_variable};

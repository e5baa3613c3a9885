//! Tunnels and routes: agents attach, callers dial.
//!
//! Two listeners: services dial on the internal one, agents attach on the
//! other, which also passes the few registry calls of wolves on, as wolves
//! reach nothing else. The data path is made of HTTP bodies that read each
//! other (`wolfpack_tunnel::splice`); nothing is queued here.

mod app;
mod audit;
#[cfg(test)]
mod audit_lines;
pub mod config;
mod connect;
mod data_plane;
pub mod domain;
pub mod exposure;
pub mod files;
pub mod follow;
pub mod metrics;
pub mod policy;
pub mod service;
pub mod state;

pub use app::{Addresses, App};
pub use config::Config;
pub use policy::POLICY;

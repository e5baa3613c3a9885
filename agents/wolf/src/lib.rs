//! The agent of a wolf: runs sandboxes on its Docker engine, reached only
//! through its tunnel.
//!
//! - [`join`]: how a host becomes a wolf, and who it then is.
//! - [`engine`]: the container engine behind one trait.
//! - [`sandbox`]: the hardened container, its directory, its agent's socket.
//! - [`admission`]: the last guard before a container is made.
//! - [`lifecycle`]: creating, removing and observing sandboxes.
//! - [`firewall`]: what sandboxes must not reach.
//! - [`relay`]: what sandboxes reach as `wolfpack.internal`.
//! - [`inventory`]: what the host has to give.
//! - [`targets`]: what runs beside the agent and is reached through its tunnel.

pub mod admission;
mod app;
pub mod config;
pub mod engine;
pub mod firewall;
pub mod inventory;
pub mod join;
pub mod lifecycle;
mod link;
pub mod metrics;
mod probe;
pub mod relay;
mod runtime;
pub mod sandbox;
mod setup;
pub mod targets;

pub use app::App;
pub use config::Config;
pub use runtime::POLICY;

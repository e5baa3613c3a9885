//! The agent of a wolf: runs sandboxes on its Docker engine, reached only
//! through its tunnel.
//!
//! - [`join`]: how a host becomes a wolf, and who it then is.
//! - [`engine`]: the container engine behind one trait.
//! - [`sandbox`]: the hardened container, its directory, its agent's socket.
//! - [`admission`]: the last guard before a container is made.
//! - [`lifecycle`]: creating, removing and observing sandboxes.
//! - [`disk_bound`]: ending sandboxes that write too much.
//! - [`bridge`]: the networks that sandboxes are on.
//! - [`firewall`]: what sandboxes must not reach.
//! - [`mounts`]: what sandboxes see of the host.
//! - [`shared_docker`]: the wolf's engine, for sandboxes that may have it.
//! - [`relay`]: what sandboxes reach as `wolfpack.internal`.
//! - [`doctor`]: whether the wolf is well.
//! - [`images`]: loading, keeping and removing images.
//! - [`inventory`]: what the host has to give.
//! - [`superseded`]: ending for good when another agent took over.
//! - [`targets`]: what runs beside the agent and is reached through its tunnel.

pub mod admission;
mod app;
pub mod bridge;
pub mod config;
pub mod disk_bound;
pub mod doctor;
pub mod engine;
pub mod firewall;
pub mod images;
pub mod inventory;
pub mod join;
pub mod lifecycle;
mod link;
pub mod metrics;
pub mod mounts;
mod probe;
pub mod relay;
mod runtime;
pub mod sandbox;
mod setup;
pub mod shared_docker;
pub mod superseded;
pub mod targets;

pub use app::App;
pub use config::Config;
pub use runtime::POLICY;

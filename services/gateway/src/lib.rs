//! The users' public port: gRPC by path, reflection, health, screenshots for curl,
//! and HTTP to the ports of sandboxes.
//!
//! It has no state and is not trusted: a call goes on as it came, with the
//! caller's own credential, and the service behind authenticates it. What has
//! no credential goes on only to the few rpcs that need none, because on the
//! way in between it would be taken for the gateway itself.

mod app;
pub mod config;
pub mod health;
mod http;
mod ingress;
mod proxy;
pub mod routes;
mod upstream;

pub use app::{Addresses, App};
pub use config::Config;
pub use http::metrics_page;

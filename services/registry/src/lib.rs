//! The registry: who is in the fleet and who may do what.
//!
//! It owns wolves (hosts that run sandboxes) with their liveness, and
//! identities: users, projects, API keys, join tokens, sandbox tokens, and the
//! certificate authority of the fleet. It places nothing and starts nothing.
//!
//! ```no_run
//! # async fn example(config: wolfpack_registry::Config, context: wolfpack_runtime::Context)
//! # -> Result<(), wolfpack_runtime::BoxError> {
//! let app = wolfpack_registry::App::build(config, context).await?;
//! if let Some(first) = app.bootstrap().await? {
//!     println!("made users/{}", first.user);
//! }
//! app.run().await
//! # }
//! ```

mod app;
mod authority;
pub mod ca;
pub mod config;
pub mod domain;
pub mod issue;
mod metrics;
mod pepper_file;
mod policy;
mod sandbox_tokens;
mod service;
mod store;
mod tasks;
mod tunnel_watch;
mod watch;

pub use app::{Addresses, App, Bootstrap};
pub use config::Config;
pub use policy::{POLICY, SERVICE_NAMES};

//! The sandbox-manager: the life of sandboxes.
//!
//! It owns the rows of sandboxes and brings each to where it should be: asks
//! the scheduler for a wolf, has the wolf's agent make the container, waits for
//! the agent inside, and clears everything away at the end. It runs programs in
//! sandboxes and looks at their desktops, over the sandbox's own tunnel or its
//! wolf's. It decides nothing about placement and holds no container itself.
//!
//! Replicas share one database and nothing else: each row has one owner at a
//! time, with an epoch that the wolves check, too.
//!
//! ```no_run
//! # async fn example(config: wolfpack_sandbox_manager::Config, context: wolfpack_runtime::Context)
//! # -> Result<(), wolfpack_runtime::BoxError> {
//! let app = wolfpack_sandbox_manager::App::build(config, context).await?;
//! println!("listening on {}", app.addresses().grpc);
//! app.run().await
//! # }
//! ```

mod app;
pub mod config;
pub mod domain;
mod feed;
mod fleet;
mod metrics;
mod peers;
mod policy;
mod reach;
mod reconcile;
mod service;
mod store;

pub use app::{Addresses, App};
pub use config::Config;
pub use policy::{POLICY, SERVICES};

//! PID 1 of the wolf image. It is two processes: the outer one gives the
//! container namespaces of its own, reaps every orphan and passes signals on;
//! the inner one, its only child, prepares the container step by step and then
//! keeps two children, dockerd and the wolf's agent, each of which can end or
//! be replaced without the other.
//!
//! SIGTERM drains: the agent, the sandboxes, the engine, within a deadline.
//! SIGHUP replaces the agent and nothing else.

mod arguments;
mod back_off;
mod children;
mod config;
mod drain;
mod exit;
mod pid1;
mod record;
mod start;
mod supervise;

use std::process::ExitCode;

pub use config::{AgentConfig, Config, EngineConfig};

/// The body of `main`.
#[must_use]
pub fn main() -> ExitCode {
    arguments::run()
}

//! The two children while they run. Each is started again when it ends, after
//! a pause that grows; neither knows of the other.

mod agent;
mod engine;
mod program;

pub(crate) use agent::{Agent, AgentEnd};
pub(crate) use engine::Engine;

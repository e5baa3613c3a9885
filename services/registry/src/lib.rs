//! The registry: who is in the fleet and who may do what.
//!
//! It owns wolves (hosts that run sandboxes) with their liveness, and
//! identities: users, projects, API keys, join tokens, sandbox tokens, and the
//! certificate authority of the fleet. It places nothing and starts nothing.

pub mod ca;
pub mod domain;

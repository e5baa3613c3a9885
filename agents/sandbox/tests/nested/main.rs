//! The engine of a NESTED sandbox, three levels deep: this machine's engine, an
//! engine with remapped users in a container of it as a wolf has one, a sandbox
//! with the agent on that, and the engine that the agent starts.
//!
//! It needs a Docker engine and the image `wolfpack/sandbox-docker`, which
//! `scripts/setup engine images` makes; no registry is asked for anything.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../machine/mod.rs"]
mod machine;

mod engine;
mod wolf;

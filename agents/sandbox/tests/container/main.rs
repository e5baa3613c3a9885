//! The static binary as PID 1 of real containers, hardened as sandboxes are,
//! reached by its socket through the mounted directory, as the wolf's agent
//! reaches it.
//!
//! It needs a Docker engine and the images `wolfpack/sandbox-base` and
//! `wolfpack/sandbox-desktop`, which `scripts/setup engine images` make.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod desktop;
mod engine;
mod life;
mod programs;

//! The tunnel over a simulated network with a clock of its own: the agents and
//! the broker are the real ones, their HTTP/2 too; only sockets and time are not. Each simulation
//! runs twice with one seed and must tell the same story.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod cuts;
mod storm;
mod supersede;
mod world;

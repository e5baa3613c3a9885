//! Requests for ports of sandboxes, all the way: a gateway, a broker, an agent's
//! tunnel and a program that speaks HTTP, with the registry that knows them all.
//! All of it is real and in one process; nothing needs an engine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod access;
mod authority;
mod bodies;
mod client;
mod events;
mod fleet;
mod links;
mod pattern;
mod program;
mod refusals;
mod sandbox;
mod sockets;

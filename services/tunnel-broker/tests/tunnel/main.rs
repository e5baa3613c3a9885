//! The tunnel over real sockets: a broker, agents and callers in one process,
//! mutual TLS between them, and a registry that only pretends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod again;
mod balancer;
mod clients;
mod control;
mod drain;
mod elsewhere;
mod exposures;
mod faults;
mod first_messages;
mod host_targets;
mod identity;
mod limits;
mod load;
mod metrics;
mod path;
mod ports;
mod support;
mod teardown;
mod vanished;
mod watch;

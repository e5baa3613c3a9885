//! The tunnel over real sockets: a broker, agents and callers in one process,
//! mutual TLS between them, and a registry that only pretends.

mod drain;
mod faults;
mod identity;
mod load;
mod path;
mod support;
mod watch;

//! The kit as its users meet it: real sockets on loopback, real TLS, real
//! HTTP/2, honest and hostile peers.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod authority;
mod calls;
mod certificates;
mod crowd;
mod data_plane;
mod deadlines;
mod drain;
mod hostile;
mod limits;
mod revoked;
mod strangers;
mod surface;
mod tls;
mod traces;
mod world;

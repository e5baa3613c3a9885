//! HTTP to ports of sandboxes, byte by byte: clients and targets are sockets.

mod access;
mod bodies;
mod connections;
mod framing;
mod http2;
mod rates;
mod raw;
mod refusals;
mod routing;
mod upgrades;

//! A DNS forwarder for the containers of an engine. Where an engine is inside
//! a container, the resolver of that container (127.0.0.11, 127.0.0.53) is out
//! of reach for the containers inside; this one listens on the bridge and hands
//! their questions on, byte for byte, so that names which only the resolvers
//! around know (split horizon) are known everywhere.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where questions are handed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// The nameservers of this file, port 53; read again when it changes.
    ResolvConf(PathBuf),
    /// These, in order.
    Fixed(Vec<SocketAddr>),
}

/// What a [`Forwarder`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwarderConfig {
    /// Where questions are handed on to.
    pub upstreams: Upstreams,
    /// Names that are answered here, whatever their case.
    pub names: BTreeMap<String, Ipv4Addr>,
}

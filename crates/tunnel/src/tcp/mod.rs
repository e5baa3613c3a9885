//! The family `tcp:{port}`: what an agent lets be dialed by its own policy,
//! whatever the broker let through.
//!
//! A port leads to the agent's own loopback, or to the one host that the policy
//! names for it. A name is resolved once; the addresses that come are checked,
//! and it is one of these that is dialed: a name that changes its mind between
//! check and dial gains nothing.

pub mod addresses;
mod connect;
mod resolve;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use wolfpack_types::{Fault, PortSet, Reason, Target};

pub use resolve::{Resolve, SystemResolver};

use crate::{TargetDialer, TargetStream, TunnelPeer};

/// A host that a port leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name or address, without brackets.
    pub name: String,
    /// The port there.
    pub port: NonZeroU16,
    /// Whether the policy means this very host: loopback addresses count then.
    /// All else that is no host elsewhere never does.
    pub own: bool,
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// What may be dialed. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpPolicy {
    /// Ports of the loopback.
    pub loopback: PortSet,
    /// Ports that lead to another host; they win over those of the loopback.
    pub hosts: BTreeMap<NonZeroU16, Host>,
}

impl TcpPolicy {
    /// Whether nothing may be dialed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.loopback.is_empty() && self.hosts.is_empty()
    }
}

/// How an agent speaks of itself in errors.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Whose ports these are: `wolf`, `sandbox`.
    pub of: &'static str,
    /// The setting that allows more.
    pub setting: &'static str,
}

/// Dials `tcp:{port}` by a policy.
pub struct TcpTargets {
    policy: TcpPolicy,
    words: Words,
    resolver: Arc<dyn Resolve>,
    /// Connections that are open: those that forget to end theirs leave room
    /// for the agent's other targets.
    room: Arc<Semaphore>,
    most: usize,
}

impl TcpTargets {
    /// Dials what `policy` allows, at most `most` connections at a time; names
    /// are those of this host's resolver.
    #[must_use]
    pub fn new(policy: TcpPolicy, words: Words, most: usize) -> Self {
        Self {
            policy,
            words,
            resolver: Arc::new(SystemResolver),
            room: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    /// The same, with names by another resolver.
    #[must_use]
    pub fn resolved_by(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }
}

/// Who may reach ports: people, services, and who has a link or reaches a port of
/// the broker, which people give out.
const CALLERS: [&str; 4] = ["users/", "services/", "links/", "exposures/"];

#[async_trait]
impl TargetDialer for TcpTargets {
    async fn dial(&self, target: &Target, peer: &TunnelPeer) -> Result<TargetStream, Fault> {
        let Words { of, setting } = self.words;
        // An agent is nobody's way to another one, whatever the broker believes.
        if !CALLERS.iter().any(|kind| peer.caller.starts_with(kind)) {
            return Err(forbidden(format!("{target} of a {of} is for users and services")));
        }
        let Some(port) = target.tcp_port() else {
            return Err(forbidden(format!(
                "{target} names no port; write tcp: and a port from 1 to 65535"
            )));
        };
        let host = self.policy.hosts.get(&port);
        if host.is_none() && !self.policy.loopback.contains(port) {
            return Err(forbidden(format!(
                "this {of} does not let port {port} be dialed; allow it in {setting}"
            )));
        }
        let full = || {
            let words = format!(
                "this {of} has {} connections to ports open, its most; end some",
                self.most
            );
            Fault::new(Reason::DialsLimited, words)
        };
        let share = Arc::new(self.room.clone().try_acquire_owned().map_err(|_| full())?);
        let socket = match host {
            None => connect::loopback(port, of).await?,
            Some(host) => {
                tracing::info!(
                    audit = "tunnel.host_dialed",
                    caller = peer.caller,
                    connection = peer.connection_id,
                    dialed = target.as_str(),
                    %host,
                    "somebody reaches another host through the agent"
                );
                connect::host(host, &*self.resolver, setting).await?
            }
        };
        Ok(TargetStream::tcp(socket, share))
    }
}

fn forbidden(words: String) -> Fault {
    Fault::new(Reason::TargetForbidden, words)
}

#[cfg(test)]
mod tests;

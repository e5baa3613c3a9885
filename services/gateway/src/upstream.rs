//! The services behind.

use wolfpack_rpc::client::{ChannelError, RpcChannel};
use wolfpack_rpc::tls::ClientTls;

use crate::config::Config;

/// A service behind the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Upstream {
    /// Wolves and identities.
    Registry,
    /// Placement.
    Scheduler,
    /// Tunnels.
    TunnelBroker,
    /// Sandboxes.
    SandboxManager,
}

impl Upstream {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Registry, Self::Scheduler, Self::TunnelBroker, Self::SandboxManager];

    /// Its name, also in its certificate.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Scheduler => "scheduler",
            Self::TunnelBroker => "tunnel-broker",
            Self::SandboxManager => "sandbox-manager",
        }
    }
}

/// A channel to each.
#[derive(Clone)]
pub(crate) struct Channels {
    registry: RpcChannel,
    scheduler: RpcChannel,
    tunnel_broker: RpcChannel,
    sandbox_manager: RpcChannel,
}

impl Channels {
    pub(crate) fn new(config: &Config, tls: Option<&ClientTls>) -> Result<Self, ChannelError> {
        let channel = |peer, upstream: Upstream| RpcChannel::to_service(peer, upstream.name(), tls);
        Ok(Self {
            registry: channel(&config.registry, Upstream::Registry)?,
            scheduler: channel(&config.scheduler, Upstream::Scheduler)?,
            tunnel_broker: channel(&config.tunnel_broker, Upstream::TunnelBroker)?,
            sandbox_manager: channel(&config.sandbox_manager, Upstream::SandboxManager)?,
        })
    }

    pub(crate) fn to(&self, upstream: Upstream) -> &RpcChannel {
        match upstream {
            Upstream::Registry => &self.registry,
            Upstream::Scheduler => &self.scheduler,
            Upstream::TunnelBroker => &self.tunnel_broker,
            Upstream::SandboxManager => &self.sandbox_manager,
        }
    }
}

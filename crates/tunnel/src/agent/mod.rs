//! The agent's side: it dials out, attaches, and serves what is dialed back.

mod attach;
mod carry;
mod carry_body;
mod connection;
mod dials;
mod exports;
mod listener;
mod session;
mod socket;
mod socket_halves;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use wolfpack_rpc::RpcChannel;
use wolfpack_runtime::random::Jitter;
use wolfpack_runtime::{Supervisor, clock};
use wolfpack_types::{Endpoint, Fault, InstanceId};

pub use listener::{TunnelIo, TunnelListener};
pub use target::{TargetDialer, TargetStream, TunnelPeer};

use dials::Dials;
use exports::{Export, Exports};

/// Who an agent is.
#[derive(Debug, Clone)]
pub struct AgentTunnelConfig {
    /// The endpoint it serves; must be the identity it authenticates with.
    pub endpoint: Endpoint,
    /// The process: a fresh id for each start. A newer one takes over from an
    /// older one.
    pub instance: InstanceId,
    /// When the process started: of two that are attached the one that started
    /// last wins.
    pub started: SystemTime,
    /// Version of the agent, for people.
    pub version: String,
    /// The most connections it takes at once.
    pub max_connections: u32,
    /// What spreads its attempts to attach over time.
    pub jitter: Jitter,
}

impl AgentTunnelConfig {
    /// The most connections unless said otherwise.
    pub const MAX_CONNECTIONS: u32 = 1024;

    /// An agent for `endpoint` with a fresh instance id, started now.
    #[must_use]
    pub fn new(endpoint: Endpoint, version: impl Into<String>) -> Self {
        Self {
            endpoint,
            instance: InstanceId::new(),
            started: clock::now(),
            version: version.into(),
            max_connections: Self::MAX_CONNECTIONS,
            jitter: Jitter::default(),
        }
    }
}

/// A broker that an agent may attach at.
#[derive(Clone)]
pub struct BrokerAt {
    /// Its agent port, `host:port`, by which a broker that leaves may name it.
    pub address: String,
    /// A channel to it that carries the agent's identity, verifies the broker's,
    /// and connects again by itself.
    pub channel: RpcChannel,
}

/// Collects what an agent offers, then starts the tunnel.
pub struct Builder {
    config: AgentTunnelConfig,
    brokers: Vec<BrokerAt>,
    exports: Exports,
}

impl Builder {
    /// Offers `target`, served by the program itself: accept the connections
    /// from the listener, or give it to tonic's `serve_with_incoming`.
    pub fn listen(&mut self, target: &str) -> TunnelListener {
        let (sender, accepted) = mpsc::channel(listener::BACKLOG);
        self.exports.add(target.to_owned(), Export::Listener(sender));
        TunnelListener::new(accepted)
    }

    /// Offers `target`, connected by `dialer`.
    pub fn dial_target(&mut self, target: &str, dialer: Arc<dyn TargetDialer>) {
        self.exports.add(target.to_owned(), Export::Dialed(dialer));
    }

    /// Offers every target `service:{argument}`, connected by `dialer`, which
    /// decides which arguments it serves.
    pub fn dial_family(&mut self, service: &str, dialer: Arc<dyn TargetDialer>) {
        self.exports.add(format!("{service}:*"), Export::Dialed(dialer));
    }

    /// Attaches, and attaches again whenever the session ends, until the
    /// supervisor stops or a newer instance takes over.
    #[must_use]
    pub fn start(self, supervisor: &Supervisor) -> AgentTunnel {
        let (attached, attached_seen) = watch::channel(false);
        let (ended, ended_seen) = watch::channel(None);
        let connections = Arc::new(AtomicU32::new(0));
        let dials = Dials::default();
        let attacher = attach::Attacher {
            config: self.config,
            brokers: self.brokers,
            exports: Arc::new(self.exports),
            connections: connections.clone(),
            dials: dials.clone(),
            supervisor: supervisor.clone(),
            sessions: Arc::default(),
            attached,
        };
        supervisor.spawn("tunnel_attach", async move {
            let fault = attacher.run().await;
            ended.send_replace(fault);
        });
        AgentTunnel { attached: attached_seen, ended: ended_seen, connections, dials }
    }
}

/// A running tunnel of an agent; cheap to clone. It runs on without the handle.
#[derive(Debug, Clone)]
pub struct AgentTunnel {
    attached: watch::Receiver<bool>,
    ended: watch::Receiver<Option<Fault>>,
    connections: Arc<AtomicU32>,
    dials: Dials,
}

impl AgentTunnel {
    /// An agent that reaches the broker by `broker`, a channel that carries the
    /// agent's identity and connects again by itself.
    #[must_use]
    pub fn builder(config: AgentTunnelConfig, broker: RpcChannel) -> Builder {
        Self::builder_of(config, BrokerAt { address: String::new(), channel: broker }, Vec::new())
    }

    /// As [`AgentTunnel::builder`], for an agent that may attach at one of
    /// several brokers: the first one, or the next when it cannot be reached,
    /// has lost the session or leaves. It holds one session at a time, and two
    /// while a broker that leaves lets connections finish.
    #[must_use]
    pub fn builder_of(
        config: AgentTunnelConfig,
        first: BrokerAt,
        others: Vec<BrokerAt>,
    ) -> Builder {
        let all = std::iter::once(first).chain(others);
        let patient = |broker: BrokerAt| BrokerAt {
            channel: broker.channel.without_deadline(),
            address: broker.address,
        };
        Builder { config, brokers: all.map(patient).collect(), exports: Exports::default() }
    }

    /// Whether a session is open now.
    #[must_use]
    pub fn attached(&self) -> watch::Receiver<bool> {
        self.attached.clone()
    }

    /// Why the tunnel gave up for good: `SUPERSEDED` when a newer instance of
    /// the same endpoint took over. `None` while it runs or was stopped.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<Option<Fault>> {
        self.ended.clone()
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Dials of the broker that wait for the stream they asked for.
    #[must_use]
    pub fn pending_dials(&self) -> usize {
        self.dials.len()
    }
}

//! The agent of a benchmark.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use wolfpack_rpc::{ByteBudget, ClientTls, PeerConfig, RpcChannel};
use wolfpack_runtime::DataThread;
use wolfpack_tunnel::tcp::{TcpPolicy, TcpTargets, Words};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, TargetDialer, TargetStream, TunnelPeer};
use wolfpack_types::{Endpoint, Fault, PortSet, Target};

use super::{context, targets, tell};

/// Connections that each target takes, far more than a measurement has.
const MOST: usize = 4096;

/// An agent of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) broker: SocketAddr,
    pub(crate) roots: Option<PathBuf>,
    pub(crate) endpoint: String,
    pub(crate) token: String,
    /// What each target leads to.
    pub(crate) targets: BTreeMap<String, SocketAddr>,
    /// A target that is a gRPC service in this process.
    pub(crate) grpc: Option<String>,
    /// Whether the tunnel has a thread of its own, as in production; else all of it
    /// runs on one, and tells how many tasks there are.
    pub(crate) data_thread: bool,
}

pub(super) async fn run(part: Agent) -> anyhow::Result<()> {
    let context = context("agent")?;
    let thread =
        if part.data_thread { Some(DataThread::start("tunnel-data", &context)?) } else { None };
    if thread.is_none() {
        tell::tasks(&context);
    }
    let guard = thread.as_ref().map(DataThread::enter);
    let tls = part.roots.as_deref().map(roots).transpose()?;
    let channel = channel(part.broker, tls.as_ref())?.with_bearer(SecretString::from(part.token));
    let endpoint = Endpoint::parse(&part.endpoint)?;
    let mut builder = AgentTunnel::builder(AgentTunnelConfig::new(endpoint, "bench"), channel);
    for (target, address) in part.targets {
        builder.dial_target(&target, Arc::new(Port::of(address)?));
    }
    if let Some(target) = part.grpc {
        let listener = builder.listen(&target);
        context.supervisor.spawn("grpc", async move {
            if let Err(error) = targets::grpc(listener).await {
                eprintln!("the gRPC service ended: {error}");
            }
        });
    }
    let _tunnel = builder.start(&context.supervisor);
    drop(guard);
    context.supervisor.token().cancelled().await;
    Ok(())
}

/// What a broker's certificate is verified with.
pub(crate) fn roots(file: &Path) -> anyhow::Result<ClientTls> {
    wolfpack_runtime::install_crypto_provider();
    Ok(ClientTls::roots_only(&std::fs::read(file)?)?)
}

/// A channel to a port of a broker, over TLS when there is something to verify it with.
pub(crate) fn channel(at: SocketAddr, tls: Option<&ClientTls>) -> anyhow::Result<RpcChannel> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let peer = PeerConfig::at(format!("{scheme}://{at}"));
    Ok(RpcChannel::for_tunnel(&peer, "tunnel-broker", tls, &ByteBudget::default())?)
}

/// Leads to one port of this machine, by the code that agents reach ports with.
pub(crate) struct Port {
    target: Target,
    dialer: TcpTargets,
}

impl Port {
    pub(crate) fn of(address: SocketAddr) -> anyhow::Result<Self> {
        let port = NonZeroU16::new(address.port()).context("a target needs a port")?;
        let policy = TcpPolicy { loopback: PortSet::all(), ..TcpPolicy::default() };
        let words = Words { of: "benchmark", setting: "its targets" };
        Ok(Self {
            target: Target::parse(&format!("tcp:{port}"))?,
            dialer: TcpTargets::new(policy, words, MOST),
        })
    }
}

#[async_trait]
impl TargetDialer for Port {
    async fn dial(&self, _: &Target, peer: &TunnelPeer) -> Result<TargetStream, Fault> {
        self.dialer.dial(&self.target, peer).await
    }
}

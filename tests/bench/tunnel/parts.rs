//! The processes of the benchmark that are ours: a broker, an agent, and what
//! it leads to. Each is this program again, started with `part NAME FILE`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use wolfpack_rpc::{Authority, ClientTls, PeerConfig, RpcChannel, TlsConfig};
use wolfpack_runtime::{Context, DataThread, TelemetryConfig};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, TargetDialer, TargetStream, TunnelPeer};
use wolfpack_tunnel_broker::config::FixedExposure;
use wolfpack_tunnel_broker::{App, Config};
use wolfpack_types::{Endpoint, Fault, Reason, Target};

use super::identity::Tokens;

/// A broker as it is in production but for two things: its registry is not
/// there, and without `tls` its agent port is plain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Broker {
    pub(super) agents: SocketAddr,
    pub(super) internal: SocketAddr,
    pub(super) tls: Option<TlsConfig>,
    /// The public key of the tokens, base64.
    pub(super) token_key: String,
    /// Target names and where they are exposed.
    pub(super) exposures: BTreeMap<String, SocketAddr>,
    pub(super) endpoint: String,
    pub(super) data_threads: usize,
    pub(super) attaches_per_second: u32,
}

/// An agent of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Agent {
    pub(super) broker: SocketAddr,
    pub(super) roots: Option<std::path::PathBuf>,
    pub(super) endpoint: String,
    pub(super) token: String,
    /// What each target leads to.
    pub(super) targets: BTreeMap<String, SocketAddr>,
}

pub(super) async fn broker(file: &Path) -> anyhow::Result<()> {
    let part: Broker = read(file)?;
    wolfpack_runtime::install_crypto_provider();
    wolfpack_tunnel_broker::files::raise_limit();
    let context = context("tunnel-broker")?;
    let mut config = Config {
        listen: part.internal,
        agents: part.agents,
        tls: part.tls,
        data_threads: part.data_threads,
        drain: Duration::ZERO,
        ..Config::default()
    };
    config.limits.attaches_per_second = part.attaches_per_second;
    config.exposures.fixed = part
        .exposures
        .into_iter()
        .map(|(target, listen)| FixedExposure {
            listen,
            endpoint: part.endpoint.clone(),
            target,
            limits: wolfpack_tunnel_broker::domain::exposure::ExposureLimits::default(),
        })
        .collect();
    // Nobody answers there: wolves and revocations are not heard of.
    let registry = RpcChannel::to_service(&PeerConfig::at("http://127.0.0.1:9"), "registry", None)?;
    let authority: Arc<dyn Authority> = Arc::new(Tokens::verifier(&part.token_key)?);
    let app = App::with_authority(config, context.clone(), registry, authority)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    app.run().await.map_err(|error| anyhow::anyhow!("{error}"))
}

pub(super) async fn agent(file: &Path) -> anyhow::Result<()> {
    let part: Agent = read(file)?;
    wolfpack_runtime::install_crypto_provider();
    let context = context("agent")?;
    let thread = DataThread::start("tunnel-data", &context)?;
    let guard = thread.enter();
    let channel = channel(part.broker, part.roots.as_deref())?
        .with_bearer(secrecy::SecretString::from(part.token));
    let endpoint = Endpoint::parse(&part.endpoint)?;
    let mut builder = AgentTunnel::builder(AgentTunnelConfig::new(endpoint, "bench"), channel);
    for (target, address) in part.targets {
        builder.dial_target(&target, Arc::new(Tcp(address)));
    }
    let _tunnel = builder.start(&context.supervisor);
    drop(guard);
    context.supervisor.token().cancelled().await;
    Ok(())
}

/// A channel to a broker, over TLS when there are roots to trust.
pub(super) fn channel(at: SocketAddr, roots: Option<&Path>) -> anyhow::Result<RpcChannel> {
    let (scheme, tls) = match roots {
        Some(roots) => ("https", Some(ClientTls::roots_only(&std::fs::read(roots)?)?)),
        None => ("http", None),
    };
    let peer = PeerConfig::at(format!("{scheme}://{at}"));
    Ok(RpcChannel::to_service(&peer, "tunnel-broker", tls.as_ref())?)
}

fn context(name: &'static str) -> anyhow::Result<Context> {
    let telemetry = TelemetryConfig { filter: "error".to_owned(), ..TelemetryConfig::default() };
    Ok(Context::new(name, &telemetry)?)
}

fn read<T: for<'a> Deserialize<'a>>(file: &Path) -> anyhow::Result<T> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

struct Tcp(SocketAddr);

#[async_trait]
impl TargetDialer for Tcp {
    async fn dial(&self, _: &Target, _: &TunnelPeer) -> Result<TargetStream, Fault> {
        let socket = TcpStream::connect(self.0).await.map_err(|error| {
            Fault::new(Reason::TargetUnreachable, "nothing listens there").caused_by(error)
        })?;
        wolfpack_rpc::server::tune(&socket);
        let (reader, writer) = socket.into_split();
        Ok(TargetStream::new(reader, writer))
    }
}

//! The broker of a benchmark.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_rpc::{Authority, PeerConfig, RpcChannel, TlsConfig};
use wolfpack_tunnel_broker::config::FixedExposure;
use wolfpack_tunnel_broker::domain::exposure::ExposureLimits;
use wolfpack_tunnel_broker::{App, Config};

use super::{context, tell};
use crate::identity::{Known, Tokens};

/// A broker as it is in production but for two things: its registry is not
/// there, and without `tls` its ports are plain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Broker {
    pub(crate) agents: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) tls: Option<TlsConfig>,
    /// Who is let in.
    pub(crate) known: Known,
    pub(crate) exposures: Vec<Exposed>,
    /// 0: all of it runs on one thread, and tells how many tasks there are.
    pub(crate) data_threads: usize,
    pub(crate) attaches_per_second: u32,
    /// Bytes that a connection may send ahead, each way; `None` for the default.
    pub(crate) stream_window: Option<u32>,
}

/// A port of the broker that leads to a target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exposed {
    pub(crate) listen: SocketAddr,
    pub(crate) endpoint: String,
    pub(crate) target: String,
}

pub(super) async fn run(part: Broker) -> anyhow::Result<()> {
    wolfpack_tunnel_broker::files::raise_limit();
    let context = context("tunnel-broker")?;
    let mut config = Config {
        listen: part.internal,
        agents: part.agents,
        metrics: Some(part.metrics),
        tls: part.tls,
        data_threads: part.data_threads,
        drain: Duration::ZERO,
        ..Config::default()
    };
    if let Some(window) = part.stream_window {
        config.limits.stream_window = window;
    }
    config.limits.attaches_per_second = part.attaches_per_second;
    config.exposures.fixed = part
        .exposures
        .into_iter()
        .map(|Exposed { listen, endpoint, target }| FixedExposure {
            listen,
            endpoint,
            target,
            limits: ExposureLimits::default(),
        })
        .collect();
    // Nobody answers there: wolves and revocations are not heard of.
    let registry = RpcChannel::to_service(&PeerConfig::at("http://127.0.0.1:9"), "registry", None)?;
    let authority: Arc<dyn Authority> = Arc::new(Tokens::of(&part.known)?);
    if part.data_threads == 0 {
        tell::tasks(&context);
    }
    let app = App::with_authority(config, context.clone(), registry, authority)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    app.run().await.map_err(|error| anyhow::anyhow!("{error}"))
}

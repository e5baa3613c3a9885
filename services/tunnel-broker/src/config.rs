//! The configuration of the broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_rpc::{PeerConfig, TlsConfig};
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::{BoxError, HasTelemetry, TelemetryConfig};
use wolfpack_types::{Endpoint, ExposureId};

use crate::domain::exposure::{ExposureLimits, ExposureRules, ExposureSpec};
use crate::domain::target;
use crate::state::Limits;

/// More threads than this only contend.
const MAX_DATA_THREADS: usize = 256;
/// More other brokers than this no agent needs to hear of.
const MAX_ALTERNATIVES: usize = 16;

/// Everything that can be set. Environment:
/// `WOLFPACK_TUNNEL_BROKER__SECTION__KEY`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where services dial. Default: `127.0.0.1:7003`.
    pub listen: SocketAddr,
    /// Where agents attach. Default: `0.0.0.0:8444`.
    pub agents: SocketAddr,
    /// Certificate, key and roots, for both listeners and for calls to the
    /// registry.
    pub tls: Option<TlsConfig>,
    /// The registry.
    pub registry: PeerConfig,
    /// Where `/metrics` and `/healthz` are served over plain HTTP; absent for
    /// nowhere.
    pub metrics: Option<SocketAddr>,
    /// Threads of the data plane, each with a runtime of its own: 0 for none,
    /// then it shares the runtime of the process. Default: half the cores.
    pub data_threads: usize,
    /// Bounds.
    pub limits: Limits,
    /// How long connections may go on after a stop began. Default: 10 min.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Ports of the broker that lead to targets.
    pub exposures: ExposureConfig,
    /// Where else agents may attach once this broker stops: agent ports of other
    /// brokers, `host:port` as it stands in the agents' own configuration; an
    /// agent goes to no other. Default: none.
    pub drain_alternatives: Vec<String>,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
}

/// Raw TCP.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExposureConfig {
    /// Those of the operator, there from the start.
    pub fixed: Vec<FixedExposure>,
    /// What callers may ask for; absent for nothing.
    pub on_request: Option<ExposureRules>,
}

/// A port that leads to a target, as the operator says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedExposure {
    /// Where to listen.
    pub listen: SocketAddr,
    /// `wolves/{id}` or `sandboxes/{id}`.
    pub endpoint: String,
    /// A target of it, such as `tcp:5432`.
    pub target: String,
    /// Its bounds.
    #[serde(default)]
    pub limits: ExposureLimits,
}

impl FixedExposure {
    /// What to open.
    ///
    /// # Errors
    /// When the endpoint or the target is none.
    pub fn spec(&self) -> Result<ExposureSpec, BoxError> {
        Ok(ExposureSpec {
            id: ExposureId::new(),
            listen: self.listen,
            endpoint: Endpoint::parse(&self.endpoint)?,
            target: target::read(&self.target)?,
            limits: self.limits,
            origin: None,
        })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = self.limits.faults("exposures.fixed.limits");
        if let Err(error) = self.spec() {
            faults.push(format!("exposures.fixed: {error}"));
        }
        faults
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7003)),
            agents: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8444)),
            tls: None,
            registry: PeerConfig::at("https://127.0.0.1:7001"),
            metrics: None,
            data_threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().div_ceil(2)),
            limits: Limits::default(),
            drain: Duration::from_secs(600),
            exposures: ExposureConfig::default(),
            drain_alternatives: Vec::new(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.limits.faults();
        if self.tls.is_none() {
            faults.push(
                "tls is missing: agents are known by certificate or token, and neither is taken without it".to_owned(),
            );
        }
        if self.data_threads > MAX_DATA_THREADS {
            faults.push(format!("data_threads must be at most {MAX_DATA_THREADS}"));
        }
        faults.extend(self.exposures.fixed.iter().flat_map(FixedExposure::faults));
        faults.extend(self.exposures.on_request.iter().flat_map(ExposureRules::faults));
        if self.drain_alternatives.len() > MAX_ALTERNATIVES {
            faults.push(format!("drain_alternatives may name at most {MAX_ALTERNATIVES} brokers"));
        }
        for address in &self.drain_alternatives {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                faults.push(format!("drain_alternatives: {address:?} is not host:port"));
            }
        }
        faults.extend(self.telemetry.faults());
        faults
    }
}

impl HasTelemetry for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn drain(&self) -> Duration {
        self.drain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told() {
        assert_eq!(Config::default().faults().len(), 1, "only tls is missing");
        let mut config = Config::default();
        config.limits.heartbeat = Duration::ZERO;
        config.limits.parked_target = 65;
        config.limits.max_connections = 0;
        config.limits.connections_per_tunnel = 4_000;
        config.limits.dials_per_second = 0;
        config.limits.dials_burst = 0;
        config.limits.bytes_per_second = 1;
        config.limits.stream_window = 1;
        config.limits.byte_budget = 0;
        assert_eq!(config.faults().len(), 10, "{:?}", config.faults());
        config.drain_alternatives =
            ["b:8444", "[::1]:8444", "b", ":8444", "b:0", "b:x"].map(str::to_owned).to_vec();
        assert_eq!(config.faults().len(), 14, "{:?}", config.faults());
        config.drain_alternatives = vec!["b:8444".to_owned(); MAX_ALTERNATIVES + 1];
        assert_eq!(config.faults().len(), 11, "{:?}", config.faults());
    }
}

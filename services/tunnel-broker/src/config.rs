//! The configuration of the broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_rpc::{PeerConfig, TlsConfig};
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::{HasTelemetry, TelemetryConfig};

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
    /// Where else agents may attach once this broker stops: agent ports of other
    /// brokers, `host:port` as it stands in the agents' own configuration; an
    /// agent goes to no other. Default: none.
    pub drain_alternatives: Vec<String>,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
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
        assert_eq!(config.faults().len(), 4, "{:?}", config.faults());
        config.drain_alternatives =
            ["b:8444", "[::1]:8444", "b", ":8444", "b:0", "b:x"].map(str::to_owned).to_vec();
        assert_eq!(config.faults().len(), 8, "{:?}", config.faults());
        config.drain_alternatives = vec!["b:8444".to_owned(); MAX_ALTERNATIVES + 1];
        assert_eq!(config.faults().len(), 5, "{:?}", config.faults());
    }
}

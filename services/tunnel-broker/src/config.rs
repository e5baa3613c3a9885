//! The configuration of the broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_rpc::{PeerConfig, TlsConfig};
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::{HasTelemetry, TelemetryConfig};

use crate::state::Limits;

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
    /// Bounds.
    pub limits: Limits,
    /// How long connections may go on after a stop began. Default: 10 min.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
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
            limits: Limits::default(),
            drain: Duration::from_secs(600),
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
    }
}

//! The configuration of the registry.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_rpc::auth::MAX_TOKEN_LIFE;
use wolfpack_rpc::client::PeerConfig;
use wolfpack_rpc::tls::TlsConfig;
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::process::HasTelemetry;
use wolfpack_runtime::telemetry::TelemetryConfig;
use wolfpack_store::DatabaseConfig;

use crate::domain::api_key::valid_environment;

/// Everything that can be set. Environment: `WOLFPACK_REGISTRY__SECTION__KEY`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the gRPC server listens. Default: `127.0.0.1:7001`.
    pub listen: SocketAddr,
    /// Certificate, key and roots; needed wherever other hosts can connect.
    pub tls: Option<TlsConfig>,
    /// Where `/metrics` and `/healthz` are served over plain HTTP; absent for
    /// nowhere.
    pub metrics: Option<SocketAddr>,
    /// The database.
    pub database: DatabaseConfig,
    /// The folder of the pepper and, unless `ca_dir` says otherwise, of the CA.
    pub data_dir: PathBuf,
    /// The folder of the CA (`ca.crt`, `ca.key`), the same on every replica;
    /// absent for `ca` in `data_dir`. One is made where there is none.
    pub ca_dir: Option<PathBuf>,
    /// The file of the pepper (32 bytes), the same on every replica; absent for
    /// `pepper` in `data_dir`. One is made where there is none.
    pub pepper_file: Option<PathBuf>,
    /// The word in every API key that tells installations apart. Default: `live`.
    pub key_environment: String,
    /// What joining wolves are told as the broker's agent port: `host:port`; an
    /// empty host means the one they joined at. Default: `:8444`.
    pub agent_endpoint: String,
    /// The tunnel broker whose tunnels tell which wolves can be reached. Without
    /// one no wolf is ever online.
    pub tunnel_broker: Option<PeerConfig>,
    /// Liveness.
    pub heartbeat: HeartbeatConfig,
    /// Tokens of sandboxes.
    pub sandbox_tokens: SandboxTokenConfig,
    /// Watches.
    pub watch: WatchConfig,
    /// How long the certificate of a wolf is valid. Default: 7 days.
    #[serde(with = "humantime_serde")]
    pub wolf_certificate_life: Duration,
    /// A wolf that joined and never registered is removed after this long.
    /// Default: 1 day.
    #[serde(with = "humantime_serde")]
    pub unregistered_wolf_life: Duration,
    /// Where the first platform admin's key is written (0600), once, when the
    /// database has no user.
    pub bootstrap_key_file: Option<PathBuf>,
    /// How long a stop waits for running calls. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
}

/// How wolves prove that they live.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// How often a wolf sends one: it is suspect after 1.5 of these without
    /// one, offline after 3. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How often silence is looked for. Default: 1 s, which is the most.
    #[serde(with = "humantime_serde")]
    pub sweep: Duration,
}

/// The tokens that sandboxes are known by.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxTokenConfig {
    /// How long one is valid. Default: 1 h, at most 24 h.
    #[serde(with = "humantime_serde")]
    pub life: Duration,
    /// How long one signing key is used before a fresh one is made. Default:
    /// 30 days.
    #[serde(with = "humantime_serde")]
    pub signing_key_life: Duration,
}

/// How changes reach watchers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// How often to look for changes of other replicas. Default: 300 ms.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// Changes that may wait for one watcher before it is cut off. Default: 4096.
    pub queue: usize,
    /// The longest a watch is without a message. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub bookmark: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7001)),
            tls: None,
            metrics: None,
            database: DatabaseConfig::default(),
            data_dir: PathBuf::from("/var/lib/wolfpack/registry"),
            ca_dir: None,
            pepper_file: None,
            key_environment: "live".to_owned(),
            agent_endpoint: ":8444".to_owned(),
            tunnel_broker: None,
            heartbeat: HeartbeatConfig::default(),
            sandbox_tokens: SandboxTokenConfig::default(),
            watch: WatchConfig::default(),
            wolf_certificate_life: Duration::from_secs(7 * 24 * 3600),
            unregistered_wolf_life: Duration::from_secs(24 * 3600),
            bootstrap_key_file: None,
            drain: Duration::from_secs(30),
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), sweep: Duration::from_secs(1) }
    }
}

impl Default for SandboxTokenConfig {
    fn default() -> Self {
        Self {
            life: Duration::from_secs(3600),
            signing_key_life: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { poll: Duration::from_millis(300), queue: 4096, bookmark: Duration::from_secs(10) }
    }
}

impl Config {
    /// The folder of the CA.
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.ca_dir.clone().unwrap_or_else(|| self.data_dir.join("ca"))
    }

    /// The file of the pepper.
    #[must_use]
    pub fn pepper_file(&self) -> PathBuf {
        self.pepper_file.clone().unwrap_or_else(|| self.data_dir.join("pepper"))
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.database.faults();
        let mut check = |ok: bool, fault: &str| {
            if !ok {
                faults.push(fault.to_owned());
            }
        };
        check(
            self.tls.is_some() || self.listen.ip().is_loopback(),
            "tls is missing: without it the registry listens on loopback only",
        );
        check(
            valid_environment(&self.key_environment),
            "key_environment must be 1 to 16 of a-z and 0-9",
        );
        check(valid_endpoint(&self.agent_endpoint), "agent_endpoint must be host:port or :port");
        check(!self.heartbeat.interval.is_zero(), "heartbeat.interval must be more than zero");
        check(
            (Duration::from_millis(1)..=Duration::from_secs(1)).contains(&self.heartbeat.sweep),
            "heartbeat.sweep must be 1 ms to 1 s",
        );
        check(
            (Duration::from_secs(60)..=MAX_TOKEN_LIFE).contains(&self.sandbox_tokens.life),
            "sandbox_tokens.life must be 1 min to 24 h",
        );
        check(
            self.sandbox_tokens.signing_key_life >= Duration::from_secs(3600),
            "sandbox_tokens.signing_key_life must be at least 1 h",
        );
        check(!self.watch.poll.is_zero(), "watch.poll must be more than zero");
        check(self.watch.queue > 0, "watch.queue must be at least 1");
        check(!self.watch.bookmark.is_zero(), "watch.bookmark must be more than zero");
        check(
            self.wolf_certificate_life >= Duration::from_secs(3600),
            "wolf_certificate_life must be at least 1 h",
        );
        check(
            self.unregistered_wolf_life >= Duration::from_secs(60),
            "unregistered_wolf_life must be at least 1 min",
        );
        faults
    }
}

fn valid_endpoint(endpoint: &str) -> bool {
    let Some((host, port)) = endpoint.rsplit_once(':') else { return false };
    let host_ok = host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)
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
    fn defaults_lack_only_the_database() {
        assert_eq!(Config::default().faults().len(), 1);
        let config = Config { database: DatabaseConfig::memory(), ..Config::default() };
        assert_eq!(config.faults(), Vec::<String>::new());
    }

    #[test]
    fn every_fault_is_told() {
        let config = Config {
            listen: "0.0.0.0:7001".parse().unwrap(),
            database: DatabaseConfig::memory(),
            key_environment: "Live!".to_owned(),
            agent_endpoint: "nowhere".to_owned(),
            heartbeat: HeartbeatConfig { interval: Duration::ZERO, sweep: Duration::from_secs(2) },
            sandbox_tokens: SandboxTokenConfig {
                life: Duration::from_secs(25 * 3600),
                signing_key_life: Duration::ZERO,
            },
            watch: WatchConfig { poll: Duration::ZERO, queue: 0, bookmark: Duration::ZERO },
            wolf_certificate_life: Duration::ZERO,
            unregistered_wolf_life: Duration::ZERO,
            ..Config::default()
        };
        assert_eq!(config.faults().len(), 12, "{:?}", config.faults());
    }

    #[test]
    fn endpoints_are_host_and_port() {
        for good in [":8444", "broker.example:8444", "[::1]:8444", "10.0.0.1:1"] {
            assert!(valid_endpoint(good), "{good}");
        }
        for bad in ["", "broker", "broker:", "broker:0", "broker:70000", "https://b:1", "a b:1"] {
            assert!(!valid_endpoint(bad), "{bad}");
        }
    }
}

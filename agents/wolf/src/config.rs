//! What the agent is told: a TOML file and `WOLFPACK_WOLF__...` variables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::{HasTelemetry, TelemetryConfig};

use crate::join::JoinToken;

mod gpu;
mod images;
mod sandboxes;
mod targets;

pub use gpu::GpuConfig;
pub use images::{ImagesConfig, RegistryConfig};
pub use sandboxes::{DockerConfig, MountsConfig};
pub use targets::TargetsConfig;

/// The longest name the registry takes, in characters.
const DISPLAY_NAME_LEN: usize = 128;
/// The most labels the registry takes.
const LABELS: usize = 64;
/// The longest name of a network that engines take.
const NETWORK_LEN: usize = 63;

/// The agent's configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The gateway to join at and to lead sandboxes to: `https://host:port`.
    pub server: String,
    /// The join token, needed at the first start only; better in a file.
    #[serde(serialize_with = "wolfpack_runtime::config::mask")]
    pub join_token: Option<SecretString>,
    /// A file with the join token.
    pub join_token_file: Option<PathBuf>,
    /// Where identity, state and the sandboxes' directories are kept. The
    /// engine must see it under the same path. Default: `/var/lib/wolfpack-wolf`.
    pub data_dir: PathBuf,
    /// The engine's unix socket, with or without `unix://`. Default:
    /// `/var/run/docker.sock`.
    pub docker_host: String,
    /// Name of the bridge that sandboxes are on. Default: derived from the
    /// wolf's id, so that wolves on one engine never share one.
    pub network: Option<String>,
    /// The static binary that runs in every sandbox. Default:
    /// `/usr/local/bin/wolfpack-sandbox-agent`.
    pub sandbox_agent_binary: PathBuf,
    /// Where the sandboxes' agents send traces: OTLP over gRPC. Default: nowhere.
    pub sandbox_otlp_endpoint: Option<String>,
    /// Where this agent attaches, `host:port`. Default: what it was told when
    /// it joined.
    pub agent_endpoint: Option<String>,
    /// More brokers to attach at, `host:port` of their agent ports: the next is
    /// tried when one cannot be reached, and a broker that leaves may name which.
    /// The registry is always reached through the first one. Default: none.
    pub other_endpoints: Vec<String>,
    /// What sandboxes reach as `wolfpack.internal`.
    pub relay: RelayConfig,
    /// A name for people. Default: the host's name.
    pub display_name: String,
    /// Labels that placement can select by.
    pub labels: BTreeMap<String, String>,
    /// What to tell the scheduler instead of what is measured.
    pub capacity: CapacityConfig,
    /// What sandboxes may have of Docker.
    pub docker: DockerConfig,
    /// Which folders of the host sandboxes may see.
    pub mounts: MountsConfig,
    /// What runs beside the agent and is reached through its tunnel.
    pub targets: TargetsConfig,
    /// How GPUs are found and what of them is offered.
    pub gpu: GpuConfig,
    /// What is kept of images, and how much disk stays free.
    pub images: ImagesConfig,
    /// Accounts at registries, for this agent's pulls only.
    pub registries: Vec<RegistryConfig>,
    /// Where `/metrics` and `/healthz` are served. Default: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
}

/// What sandboxes reach as `wolfpack.internal`, on the bridge's address only.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Port that leads to the gateway; 0, or one that is taken, means a free
    /// one, kept over restarts. Default: 8443.
    pub gateway_port: u16,
    /// Port that leads to the broker; as above. Default: 8444.
    pub broker_port: u16,
    /// The gateway as this host reaches it, `host:port`. Default: that of
    /// `server`.
    pub gateway: Option<String>,
    /// The broker's agent port as this host reaches it, `host:port`. Default:
    /// where this agent attaches.
    pub broker: Option<String>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { gateway_port: 8443, broker_port: 8444, gateway: None, broker: None }
    }
}

/// What to tell the scheduler instead of what is measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CapacityConfig {
    /// CPU time in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk in bytes.
    pub disk_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Desktops at a time. Default: two a processor.
    pub desktop_slots: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: String::new(),
            join_token: None,
            join_token_file: None,
            data_dir: "/var/lib/wolfpack-wolf".into(),
            docker_host: "/var/run/docker.sock".to_owned(),
            network: None,
            sandbox_agent_binary: "/usr/local/bin/wolfpack-sandbox-agent".into(),
            sandbox_otlp_endpoint: None,
            agent_endpoint: None,
            other_endpoints: Vec::new(),
            relay: RelayConfig::default(),
            display_name: String::new(),
            labels: BTreeMap::new(),
            capacity: CapacityConfig::default(),
            docker: DockerConfig::default(),
            mounts: MountsConfig::default(),
            targets: TargetsConfig::default(),
            gpu: GpuConfig::default(),
            images: ImagesConfig::default(),
            registries: Vec::new(),
            metrics: None,
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Config {
    /// The engine's socket as a path.
    #[must_use]
    pub fn docker_socket(&self) -> &Path {
        Path::new(self.docker_host.strip_prefix("unix://").unwrap_or(&self.docker_host))
    }

    /// Host and port of the gateway.
    ///
    /// # Errors
    /// When `server` is not `https://host:port`; says what to write.
    pub fn server_authority(&self) -> Result<HostPort, String> {
        let authority = self
            .server
            .strip_prefix("https://")
            .ok_or("server must be https://host:port of the gateway")?;
        HostPort::parse(authority.trim_end_matches('/'), Some(443))
            .map_err(|fault| format!("server: {fault}"))
    }
}

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`, `[v6]:port`, or with a default port only the host.
    /// The host may be empty.
    ///
    /// # Errors
    /// When it is neither; says what to write.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, String> {
        let fault = || format!("{text:?} is not host:port");
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(fault)?;
            (host, rest.strip_prefix(':'))
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            Some(port) => port.parse().ok(),
            None => default_port,
        };
        let odd = |c: char| c.is_whitespace() || matches!(c, '/' | '@' | '[' | ']' | '?' | '#');
        match port {
            Some(port) if !host.contains(odd) => Ok(Self { host: host.to_owned(), port }),
            _ => Err(fault()),
        }
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.telemetry.faults();
        let mut rule = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        rule(self.docker_socket().is_absolute(), "docker_host must be the path of a unix socket");
        rule(
            self.data_dir.is_absolute(),
            "data_dir must be an absolute path: the engine mounts from it",
        );
        rule(!self.sandbox_agent_binary.as_os_str().is_empty(), "sandbox_agent_binary must be set");
        rule(
            self.display_name.chars().count() <= DISPLAY_NAME_LEN,
            "display_name must have at most 128 characters",
        );
        rule(self.labels.len() <= LABELS, "labels: at most 64");
        for (key, value) in &self.labels {
            let valid = label_key_valid(key) && value.chars().count() <= DISPLAY_NAME_LEN;
            rule(
                valid,
                &format!(
                    "labels.{key}: a key is a-z0-9._/- up to 63, a value has at most 128 characters"
                ),
            );
        }
        if let Some(network) = &self.network {
            let valid = network
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                && (1..=NETWORK_LEN).contains(&network.len())
                && !matches!(network.as_str(), "host" | "none" | "bridge" | "default");
            rule(valid, "network must be a name of its own of A-Za-z0-9._-");
        }
        rule(
            self.join_token.is_none() || self.join_token_file.is_none(),
            "set join_token or join_token_file, not both",
        );
        if let Some(token) = &self.join_token {
            rule(JoinToken::parse(token).is_ok(), "join_token is not a join token: copy it whole");
        }
        faults.extend(self.server_authority().err());
        faults.extend(self.docker.faults());
        faults.extend(self.gpu.faults());
        faults.extend(self.images.faults());
        faults.extend(images::registry_faults(&self.registries));
        faults.extend(self.mounts.faults());
        faults.extend(self.targets.faults(&self.mounts.allow));
        let single = [
            ("agent_endpoint", self.agent_endpoint.as_ref()),
            ("relay.gateway", self.relay.gateway.as_ref()),
            ("relay.broker", self.relay.broker.as_ref()),
        ];
        let others = self.other_endpoints.iter().map(|other| ("other_endpoints", Some(other)));
        for (key, value) in single.into_iter().chain(others) {
            match value.map(|text| HostPort::parse(text, None)) {
                Some(Err(fault)) => faults.push(format!("{key}: {fault}")),
                Some(Ok(read)) if read.host.is_empty() => {
                    faults.push(format!("{key}: the host is missing"));
                }
                Some(Ok(_)) | None => {}
            }
        }
        faults
    }
}

fn label_key_valid(key: &str) -> bool {
    let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b'-');
    let edge = |b: Option<&u8>| b.is_some_and(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
    let bytes = key.as_bytes();
    bytes.len() <= NETWORK_LEN
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| inner(*b))
}

impl HasTelemetry for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable() -> Config {
        Config { server: "https://gateway.example:8443".into(), ..Config::default() }
    }

    #[test]
    fn a_server_is_all_that_must_be_said() {
        assert_eq!(usable().faults(), Vec::<String>::new());
        assert_eq!(Config::default().faults().len(), 1);
        assert_eq!(usable().server_authority().unwrap().to_string(), "gateway.example:8443");
    }

    #[test]
    fn every_fault_is_told() {
        let config = Config {
            server: "http://x".into(),
            docker_host: "tcp://1.2.3.4:2375".into(),
            data_dir: "data".into(),
            network: Some("host".into()),
            labels: BTreeMap::from([("Gpu".to_owned(), String::new())]),
            agent_endpoint: Some(":8444".into()),
            other_endpoints: vec!["b.example:8444".into(), "b.example".into()],
            relay: RelayConfig { broker: Some("host".into()), ..RelayConfig::default() },
            join_token: Some("nonsense".into()),
            join_token_file: Some("/x".into()),
            ..Config::default()
        };
        let faults = config.faults();
        assert_eq!(faults.len(), 10, "{faults:#?}");
        assert!(!faults.join(" ").contains("nonsense"), "a token is a secret");
    }

    #[test]
    fn hosts_and_ports_are_read_in_all_their_forms() {
        let read = |text: &str| HostPort::parse(text, None).ok().map(|read| (read.host, read.port));
        assert_eq!(read("a.b:1"), Some(("a.b".into(), 1)));
        assert_eq!(read("[::1]:8444"), Some(("::1".into(), 8444)));
        assert_eq!(read(":8444"), Some((String::new(), 8444)));
        assert_eq!(HostPort::parse("[::1]:2", None).unwrap().to_string(), "[::1]:2");
        for bad in ["a", "::1:8444", "a:b", "a:70000", "u@h:1", "h/x:1", "[::1]"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(HostPort::parse("h", Some(443)).unwrap().port, 443);
    }
}

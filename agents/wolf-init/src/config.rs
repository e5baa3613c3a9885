//! What the init is told: `WOLFPACK_INIT__...` variables.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use wolfpack_dockerd::place::nvidia::NvidiaPaths;
use wolfpack_dockerd::plan::MAX_DEPTH;
use wolfpack_runtime::config::Validate;
use wolfpack_runtime::{HasTelemetry, TelemetryConfig};

/// `docker stop` kills after ten seconds unless it is told otherwise.
const DRAIN: Duration = Duration::from_secs(8);

/// The init's configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many engines are around this one, with it. Default: 1, a wolf on a
    /// machine's engine.
    pub depth: u8,
    /// Where its networks are planned, `172.20.0.0/14` for one. Default: the
    /// first range that overlaps nothing.
    pub pool: Option<Ipv4Net>,
    /// Ranges that must stay reachable though no route tells of them, as a
    /// list: `["10.9.0.0/16"]`.
    pub avoid: Vec<Ipv4Net>,
    /// The most the MTU may be. Default: that of the way out.
    pub mtu: Option<u32>,
    /// What outlives the container: the plan, the agent's state. A volume.
    /// Default: `/var/lib/wolfpack-wolf`.
    pub state_dir: PathBuf,
    /// The engine's data. A volume. Default: `/var/lib/docker`.
    pub data_root: PathBuf,
    /// What lives as long as the container. Default: `/run`.
    pub run_dir: PathBuf,
    /// The engine.
    pub engine: EngineConfig,
    /// The agent.
    pub agent: AgentConfig,
    /// Where NVIDIA's programs and devices are.
    pub nvidia: NvidiaPaths,
    /// How long a stop may take, in all. Give `docker run --stop-timeout` more.
    /// Default: 8 s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Logs.
    pub telemetry: TelemetryConfig,
}

/// The engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// The dockerd program. Default: `dockerd`, from the `PATH`.
    pub program: PathBuf,
    /// The storage driver it must use; empty leaves it to dockerd, which must
    /// then take overlay2 or overlayfs. Default: `overlay2`.
    pub storage_driver: String,
    /// Whose subordinate ids sandboxes' root is mapped to; empty turns it off,
    /// and with it every sandbox that wants an engine of its own. Default:
    /// `default`, the user `dockremap`.
    pub userns_remap: String,
    /// Whether sandboxes go on while dockerd is away. Default: yes.
    pub live_restore: bool,
    /// How long it may take to be ready. Default: 60 s.
    #[serde(with = "humantime_serde")]
    pub start: Duration,
    /// A file with more keys for its `daemon.json`: mirrors, registries.
    pub daemon_json: Option<PathBuf>,
}

/// The agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The program of the image. A newer one at `bin/` of the state folder,
    /// with the same name, is taken instead. Default:
    /// `/usr/local/bin/wolfpack-wolf-agent`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            depth: 1,
            pool: None,
            avoid: Vec::new(),
            mtu: None,
            state_dir: "/var/lib/wolfpack-wolf".into(),
            data_root: "/var/lib/docker".into(),
            run_dir: "/run".into(),
            engine: EngineConfig::default(),
            agent: AgentConfig::default(),
            nvidia: NvidiaPaths::default(),
            drain: DRAIN,
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            program: "dockerd".into(),
            storage_driver: "overlay2".to_owned(),
            userns_remap: "default".to_owned(),
            live_restore: true,
            start: Duration::from_secs(60),
            daemon_json: None,
        }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self { program: "/usr/local/bin/wolfpack-wolf-agent".into(), arguments: Vec::new() }
    }
}

impl Config {
    /// The engine's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("docker.sock")
    }

    /// Where an agent that was brought later is looked for.
    #[must_use]
    pub fn brought_agent(&self) -> PathBuf {
        let name = self.agent.program.file_name().unwrap_or_default();
        self.state_dir.join("bin").join(name)
    }

    /// Where the plan is kept.
    #[must_use]
    pub fn plan_file(&self) -> PathBuf {
        self.state_dir.join("network.json")
    }
}

impl Validate for Config {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.telemetry.faults();
        let mut rule = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        rule(
            (1..=MAX_DEPTH).contains(&self.depth),
            format!("depth must be 1 to {MAX_DEPTH}: how many engines are around, with this one"),
        );
        for (key, path) in [
            ("state_dir", &self.state_dir),
            ("data_root", &self.data_root),
            ("run_dir", &self.run_dir),
            ("agent.program", &self.agent.program),
        ] {
            rule(path.is_absolute(), format!("{key} must be an absolute path"));
        }
        let at_least = Duration::from_secs(2);
        rule(self.drain >= at_least, "drain must be at least 2s".to_owned());
        rule(self.engine.start >= at_least, "engine.start must be at least 2s".to_owned());
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
    fn the_defaults_can_be_used_and_every_fault_is_told() {
        assert_eq!(Config::default().faults(), Vec::<String>::new());
        let config = Config {
            depth: 0,
            state_dir: "state".into(),
            run_dir: PathBuf::new(),
            drain: Duration::ZERO,
            ..Config::default()
        };
        let faults = config.faults().join("\n");
        for key in ["depth", "state_dir", "run_dir", "drain"] {
            assert!(faults.contains(key), "{key}: {faults}");
        }
    }

    #[test]
    fn an_agent_that_was_brought_has_the_images_name() {
        let config = Config::default();
        assert_eq!(
            config.brought_agent(),
            PathBuf::from("/var/lib/wolfpack-wolf/bin/wolfpack-wolf-agent")
        );
        assert_eq!(config.socket(), PathBuf::from("/run/docker.sock"));
    }
}

//! What an engine is told, and the two texts that tell it: its arguments and
//! its `daemon.json`. Pure.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::plan::NetworkPlan;

/// Keys of `daemon.json` that belong to [`EngineOptions`]: the engine is found,
/// watched and kept apart by them.
const OWNED: [&str; 13] = [
    "hosts",
    "data-root",
    "exec-root",
    "pidfile",
    "bip",
    "mtu",
    "default-address-pools",
    "dns",
    "userns-remap",
    "live-restore",
    "storage-driver",
    "containerd",
    "bridge",
];

/// Where the engine's own output goes: two files of this size at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// The file that is written; `.1` beside it is the one before.
    pub file: PathBuf,
    /// From this many bytes on a new one is begun. Default: 8 MiB.
    pub max_bytes: u64,
}

/// How containers get at an NVIDIA GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// The runtime that the engine knows as `nvidia`.
    pub nvidia_runtime: Option<PathBuf>,
    /// Whether the engine is told to read CDI specifications.
    pub cdi: bool,
}

/// What an engine is told.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// The dockerd program; a bare name is looked for in the `PATH`.
    pub program: PathBuf,
    /// Where images, containers and volumes are; on a volume, or overlays
    /// would stack.
    pub data_root: PathBuf,
    /// Where the engine keeps what lives as long as it runs.
    pub exec_root: PathBuf,
    /// The unix socket it listens on.
    pub socket: PathBuf,
    /// Its pid file.
    pub pid_file: PathBuf,
    /// Where its `daemon.json` is written.
    pub config_file: PathBuf,
    /// Where its output is kept.
    pub log: LogOptions,
    /// The networks it may make.
    pub plan: NetworkPlan,
    /// What its containers ask for names; empty leaves it to the engine.
    pub dns: Vec<Ipv4Addr>,
    /// The driver it must use; `None` leaves the choice to it. Whatever it
    /// takes, [`super::Daemon::start`] refuses all but overlays.
    pub storage_driver: Option<String>,
    /// The user whose subordinate ids its containers' root is mapped to.
    pub userns_remap: Option<String>,
    /// It runs in a user namespace that somebody else made.
    pub rootless: bool,
    /// Containers go on while it is away.
    pub live_restore: bool,
    /// GPUs for its containers.
    pub gpu: GpuOptions,
    /// Variables it gets beside those of this process.
    pub environment: Vec<(OsString, OsString)>,
    /// More keys for `daemon.json`; none of those that are told here.
    pub extra: Map<String, Value>,
}

impl EngineOptions {
    /// An engine with its data in `data_root` and all that lives as long as it
    /// runs below `run_dir`; its socket is `run_dir/docker.sock`, its log
    /// `run_dir/dockerd.log`.
    #[must_use]
    pub fn new(program: &Path, data_root: &Path, run_dir: &Path, plan: NetworkPlan) -> Self {
        Self {
            program: program.to_owned(),
            data_root: data_root.to_owned(),
            exec_root: run_dir.join("docker"),
            socket: run_dir.join("docker.sock"),
            pid_file: run_dir.join("docker.pid"),
            config_file: run_dir.join("daemon.json"),
            log: LogOptions { file: run_dir.join("dockerd.log"), max_bytes: 8 << 20 },
            plan,
            dns: Vec::new(),
            storage_driver: Some("overlay2".to_owned()),
            userns_remap: None,
            rootless: false,
            live_restore: false,
            gpu: GpuOptions::default(),
            environment: Vec::new(),
            extra: Map::new(),
        }
    }

    /// What is wrong with these options; empty when they can be used.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let owned = self.extra.keys().filter(|key| OWNED.contains(&key.as_str()));
        let mut faults: Vec<String> = owned
            .map(|key| format!("{key:?} of daemon.json is decided elsewhere; leave it out"))
            .collect();
        if self.rootless && self.userns_remap.is_some() {
            faults.push("an engine in a user namespace cannot remap users again".to_owned());
        }
        let paths =
            [&self.data_root, &self.exec_root, &self.socket, &self.pid_file, &self.config_file];
        for path in paths.into_iter().filter(|path| !path.is_absolute()) {
            faults.push(format!("{} must be an absolute path", path.display()));
        }
        faults
    }
}

/// What dockerd is called with. All that can be is in [`daemon_json`].
#[must_use]
pub fn arguments(options: &EngineOptions) -> Vec<OsString> {
    let mut arguments = vec!["--config-file".into(), options.config_file.clone().into_os_string()];
    if options.rootless {
        arguments.push("--rootless".into());
    }
    arguments
}

/// The engine's `daemon.json`. Only keys that Docker 20.10 knows: it refuses
/// to start on others.
#[must_use]
pub fn daemon_json(options: &EngineOptions) -> Value {
    let mut config = options.extra.clone();
    // Containers that write without end must not fill the wolf's disk.
    config.entry("log-driver").or_insert_with(|| json!("json-file"));
    if config["log-driver"] == "json-file" || config["log-driver"] == "local" {
        config.entry("log-opts").or_insert_with(|| json!({ "max-size": "10m", "max-file": "3" }));
    }
    let pools: Vec<Value> = options
        .plan
        .pools
        .iter()
        .map(|pool| json!({ "base": pool.base.to_string(), "size": pool.size }))
        .collect();
    let mut own = json!({
        "hosts": [format!("unix://{}", options.socket.display())],
        "data-root": options.data_root,
        "exec-root": options.exec_root,
        "pidfile": options.pid_file,
        "bip": options.plan.bridge.to_string(),
        "mtu": options.plan.mtu,
        "default-address-pools": pools,
        "live-restore": options.live_restore,
    });
    if !options.dns.is_empty() {
        own["dns"] = json!(options.dns);
    }
    if let Some(driver) = &options.storage_driver {
        own["storage-driver"] = json!(driver);
    }
    if let Some(user) = &options.userns_remap {
        own["userns-remap"] = json!(user);
    }
    if let Some(runtime) = &options.gpu.nvidia_runtime {
        own["runtimes"] = json!({ "nvidia": { "path": runtime, "runtimeArgs": [] } });
    }
    if options.gpu.cdi {
        own["features"] = json!({ "cdi": true });
    }
    if let Value::Object(own) = own {
        for (key, value) in own {
            merge(&mut config, key, value);
        }
    }
    Value::Object(config)
}

/// Tables of both sides are joined; otherwise ours stands.
fn merge(config: &mut Map<String, Value>, key: String, value: Value) {
    match (config.get_mut(&key), value) {
        (Some(Value::Object(there)), Value::Object(value)) => there.extend(value),
        (_, value) => drop(config.insert(key, value)),
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;

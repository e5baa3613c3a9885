//! The container of the wolf image, as pure data: what `docker run` would be
//! told. docs/wolf.md says what each line is for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, HostConfigLogConfig, Mount,
    MountType, RestartPolicy, RestartPolicyNameEnum,
};
use serde::Serialize;

use super::names::{DATA_LABEL, Names};

/// The label that names what a container was made of: another one is made anew.
pub(super) const MAKING_LABEL: &str = "dev.wolfpack.making";
/// The label of the wolf by which it is found among others.
pub(super) const INSTANCE_LABEL: &str = "dev.wolfpack.instance";
/// Where the folder with the join token is seen inside.
const JOIN: &str = "/etc/wolfpack";
/// No privileged mode: what PID 1 needs to prepare the container for an engine.
const CAPABILITIES: [&str; 4] = ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"];
/// The agent drains first, then its engine.
const STOP_SECONDS: i64 = 60;

/// What the container depends on.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    /// The id of the image.
    pub(super) image: String,
    /// The gateway address of the container's bridge, where the relay listens.
    pub(super) bridge: std::net::Ipv4Addr,
    /// The relay's ports.
    pub(super) gateway_port: u16,
    /// As above.
    pub(super) broker_port: u16,
    /// The instance of the state volume.
    pub(super) instance: String,
    /// The folder of this machine with the join token.
    pub(super) join: PathBuf,
    /// Folders of this machine that sandboxes may mount.
    pub(super) mount_roots: Vec<PathBuf>,
    /// CPU time to offer, in thousandths of a core.
    pub(super) cpu_milli: Option<u64>,
    /// What the agent logs.
    pub(super) filter: String,
    /// Whether the engine hands out NVIDIA's GPUs.
    pub(super) nvidia: bool,
    /// Whether the machine has render nodes.
    pub(super) render_nodes: bool,
}

impl Settings {
    /// A name for all of it and for the version of the code below.
    pub(super) fn making(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        hasher.update(env!("CARGO_PKG_VERSION").as_bytes()).update(&text);
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The request that makes the container.
    pub(super) fn body(&self, names: &Names) -> ContainerCreateBody {
        let labels = [(MAKING_LABEL, self.making()), (DATA_LABEL, names.data.clone())];
        ContainerCreateBody {
            image: Some(self.image.clone()),
            hostname: Some("wolf".to_owned()),
            env: Some(self.environment()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            stop_timeout: Some(STOP_SECONDS),
            host_config: Some(self.host_config(names)),
            ..ContainerCreateBody::default()
        }
    }

    fn environment(&self) -> Vec<String> {
        // A value that begins with a bracket is read as TOML.
        let list = |paths: &[PathBuf]| {
            let quoted: Vec<String> =
                paths.iter().map(|path| toml_string(&path.display().to_string())).collect();
            format!("[{}]", quoted.join(", "))
        };
        let mut variables = vec![
            ("SERVER", format!("https://wolfpack.internal:{}", self.gateway_port)),
            ("AGENT_ENDPOINT", format!("wolfpack.internal:{}", self.broker_port)),
            ("JOIN_TOKEN_FILE", format!("{JOIN}/join.token")),
            ("DISPLAY_NAME", "dev".to_owned()),
            ("LABELS", format!("{{ {INSTANCE_LABEL:?} = {:?} }}", self.instance)),
            ("TELEMETRY__FILTER", self.filter.clone()),
            ("MOUNTS__ALLOW", list(&self.mount_roots)),
            // All projects of this machine's fleet are its one user's.
            ("MOUNTS__EVERY_PROJECT", "true".to_owned()),
        ];
        if let Some(cpu) = self.cpu_milli {
            variables.push(("CAPACITY__CPU_MILLI", cpu.to_string()));
        }
        let mut lines: Vec<String> = variables
            .into_iter()
            .map(|(key, value)| format!("WOLFPACK_WOLF__{key}={value}"))
            .collect();
        if self.nvidia {
            lines.push("NVIDIA_VISIBLE_DEVICES=all".to_owned());
            lines.push("NVIDIA_DRIVER_CAPABILITIES=all".to_owned());
        }
        lines
    }

    fn host_config(&self, names: &Names) -> HostConfig {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let folder = |path: &Path, target: &str, read_only| {
            mount(MountType::BIND, &path.display().to_string(), target, read_only)
        };
        let mut mounts = vec![
            mount(MountType::VOLUME, &names.state_volume, "/var/lib/wolfpack-wolf", false),
            mount(MountType::VOLUME, &names.docker_volume, "/var/lib/docker", false),
            folder(&self.join, JOIN, true),
        ];
        // The same path on both sides: the user names it as this machine knows it.
        mounts.extend(
            self.mount_roots.iter().map(|root| folder(root, &root.display().to_string(), false)),
        );
        let nodes = DeviceMapping {
            path_on_host: Some("/dev/dri".to_owned()),
            path_in_container: Some("/dev/dri".to_owned()),
            cgroup_permissions: Some("rw".to_owned()),
        };
        let gpus = DeviceRequest {
            driver: Some("nvidia".to_owned()),
            count: Some(-1),
            capabilities: Some(vec![words(&["gpu", "compute", "utility", "video", "graphics"])]),
            ..DeviceRequest::default()
        };
        HostConfig {
            cap_add: Some(words(&CAPABILITIES)),
            security_opt: Some(words(&["seccomp=unconfined", "apparmor=unconfined"])),
            device_cgroup_rules: Some(words(&["c *:* rmw"])),
            tmpfs: Some(HashMap::from([
                ("/run".to_owned(), String::new()),
                ("/tmp".to_owned(), "exec".to_owned()),
            ])),
            mounts: Some(mounts),
            network_mode: Some(names.network.clone()),
            extra_hosts: Some(vec![format!("wolfpack.internal:{}", self.bridge)]),
            devices: self.render_nodes.then(|| vec![nodes]),
            device_requests: self.nvidia.then(|| vec![gpus]),
            privileged: Some(false),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "10m".to_owned()),
                    ("max-file".to_owned(), "3".to_owned()),
                ])),
            }),
            // Without its control plane it would only wait; the next start wakes it.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        }
    }
}

fn mount(kind: MountType, source: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(kind),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

/// A string as TOML writes it: the escapes it shares with JSON.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            image: "sha256:1".to_owned(),
            bridge: [172, 30, 0, 1].into(),
            gateway_port: 8443,
            broker_port: 8444,
            instance: "i1".to_owned(),
            join: "/data/join".into(),
            mount_roots: vec!["/home/me/a \"b\"".into()],
            cpu_milli: Some(8_000),
            filter: "warn".to_owned(),
            nvidia: false,
            render_nodes: false,
        }
    }

    fn names() -> Names {
        Names {
            container: "c".to_owned(),
            network: "n".to_owned(),
            state_volume: "s".to_owned(),
            docker_volume: "d".to_owned(),
            data: "/data".to_owned(),
        }
    }

    #[test]
    fn it_is_not_privileged_and_sees_no_engine_of_the_host() {
        let body = settings().body(&names());
        let Some(host) = body.host_config else { panic!("no host config") };
        assert_eq!(host.privileged, Some(false));
        assert_eq!(host.network_mode.as_deref(), Some("n"));
        let sources: Vec<String> =
            host.mounts.unwrap_or_default().into_iter().filter_map(|mount| mount.source).collect();
        assert_eq!(sources, ["s", "d", "/data/join", "/home/me/a \"b\""]);
        assert!(host.devices.is_none() && host.device_requests.is_none());
    }

    #[test]
    fn the_agent_reads_what_it_is_told() {
        let environment = settings().environment();
        let find = |key: &str| {
            let prefix = format!("WOLFPACK_WOLF__{key}=");
            environment.iter().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        };
        assert_eq!(find("SERVER").as_deref(), Some("https://wolfpack.internal:8443"));
        assert_eq!(find("MOUNTS__EVERY_PROJECT").as_deref(), Some("true"));
        for key in ["LABELS", "MOUNTS__ALLOW"] {
            let text = format!("value = {}", find(key).unwrap_or_default());
            assert!(text.parse::<toml::Table>().is_ok(), "{text}");
        }
    }

    #[test]
    fn another_making_is_another_container() {
        let same = settings().making();
        assert_eq!(settings().making(), same);
        let moved = Settings { gateway_port: 1, ..settings() };
        assert_ne!(moved.making(), same);
        let gpus = Settings { nvidia: true, render_nodes: true, ..settings() };
        let host = gpus.body(&names()).host_config.unwrap_or_default();
        assert!(host.devices.is_some() && host.device_requests.is_some());
    }
}

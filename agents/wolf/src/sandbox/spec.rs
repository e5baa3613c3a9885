//! A sandbox's container, hardened. [`ContainerSpec`] is the only thing an
//! engine makes a container from, and it can only be made by
//! [`ContainerSpec::new`], which takes no mounts, capabilities, namespaces or
//! security options from anybody: what a user's request cannot say, it cannot
//! loosen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use wolfpack_types::DockerMode;
use wolfpack_types::sandbox_boot::{AGENT_BINARY, BIN_DIR, BOOT_DIR, DOCKER_DATA, INTERNAL_HOST};

use super::labels::{self, Goods, Identity};
use crate::engine::hardening::Policy;
use crate::engine::{ImageConfig, Network};

/// What a sandbox gets of each good that its reservation does not state.
const DEFAULT_CPU_MILLI: u64 = 1_000;
const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;
const DEFAULT_PIDS: u32 = 1_024;
/// An engine and its containers count too.
const DEFAULT_NESTED_PIDS: u32 = 4_096;
/// Below these an engine refuses, or the sandbox's agent cannot live.
const MIN_CPU_MILLI: u64 = 10;
const MIN_MEMORY_BYTES: u64 = 32 << 20;
const MIN_PIDS: u32 = 32;
/// Shared memory: what engines give by default, and what a browser on a
/// desktop needs. It counts against the sandbox's own memory.
const SHARED_MEMORY: u64 = 64 << 20;
const DESKTOP_SHARED_MEMORY: u64 = 512 << 20;
/// The longest host name a kernel takes.
const HOST_NAME_LEN: usize = 63;

/// Limits of a sandbox; none of them is ever absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// CPU time in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory in bytes; there is no swap on top of it.
    pub memory_bytes: u64,
    /// Processes and threads at a time.
    pub pids: u32,
    /// Shared memory in bytes, part of the memory.
    pub shared_memory_bytes: u64,
}

impl Limits {
    fn of(goods: &Goods, host_cpus: Option<u32>, docker: DockerMode) -> Self {
        let default_pids =
            if docker == DockerMode::Nested { DEFAULT_NESTED_PIDS } else { DEFAULT_PIDS };
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        // An engine refuses more processors than the host has.
        let most = host_cpus.map_or(u64::MAX, |cpus| u64::from(cpus.max(1)) * 1_000);
        let memory_bytes = or(goods.holding.memory_bytes, DEFAULT_MEMORY_BYTES)
            .clamp(MIN_MEMORY_BYTES, i64::MAX.unsigned_abs());
        let shared = if goods.holding.desktop { DESKTOP_SHARED_MEMORY } else { SHARED_MEMORY };
        Self {
            cpu_milli: or(goods.holding.cpu_milli, DEFAULT_CPU_MILLI).max(MIN_CPU_MILLI).min(most),
            memory_bytes,
            pids: if goods.pids == 0 { default_pids } else { goods.pids }.max(MIN_PIDS),
            shared_memory_bytes: shared.min(memory_bytes / 2),
        }
    }
}

/// How a granted GPU gets into a container.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuAccess {
    /// By the engine, as a CDI specification describes it.
    Cdi {
        /// `vendor/class=name`.
        name: String,
        /// Its UUID when it is one of NVIDIA's.
        nvidia: Option<String>,
    },
    /// By the vendor's runtime, which knows the device by this id.
    Nvidia {
        /// UUID, or PCI address when the driver did not tell the UUID.
        id: String,
    },
    /// By device nodes.
    Nodes {
        /// The nodes.
        nodes: Vec<PathBuf>,
        /// The groups that may use them.
        groups: Vec<u32>,
    },
}

impl GpuAccess {
    /// NVIDIA's id of the device.
    #[must_use]
    pub fn nvidia(&self) -> Option<&str> {
        match self {
            Self::Cdi { nvidia, .. } => nvidia.as_deref(),
            Self::Nvidia { id } => Some(id),
            Self::Nodes { .. } => None,
        }
    }
}

/// What NVIDIA's runtime brings in by itself: `void` for nothing.
pub const NVIDIA_VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// What CUDA looks at.
const CUDA_VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The variables by which programs in a sandbox know its devices of NVIDIA's:
/// exactly those, by UUID. Empty without any.
#[must_use]
pub fn visible_devices(gpus: &[GpuAccess]) -> Vec<(String, String)> {
    let ids: Vec<&str> = gpus.iter().filter_map(GpuAccess::nvidia).collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let ids = ids.join(",");
    vec![(NVIDIA_VISIBLE.to_owned(), ids.clone()), (CUDA_VISIBLE.to_owned(), ids)]
}

/// What a sandbox's container has of Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DockerAccess<'a> {
    /// Nothing.
    None,
    /// An engine of its own, whose data is on this volume. The network must be
    /// its own too: it may change all of it.
    Nested {
        /// The volume's name.
        volume: &'a str,
    },
    /// The wolf's engine, by a socket in the boot directory.
    Shared,
}

impl DockerAccess<'_> {
    /// The mode.
    #[must_use]
    pub fn mode(self) -> DockerMode {
        match self {
            Self::None => DockerMode::None,
            Self::Nested { .. } => DockerMode::Nested,
            Self::Shared => DockerMode::Shared,
        }
    }
}

/// A folder or file of the host that the engine shows in a container: one that
/// [`crate::mounts`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMount {
    /// The path for the engine.
    pub source: PathBuf,
    /// The path in the sandbox.
    pub target: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// What kind of thing is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountedKind {
    /// A directory that the agent made for the sandbox.
    Ours,
    /// A volume of the engine.
    Volume,
    /// A folder or file of the host that its operator allows.
    Host,
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// What it is: a path of the host, or a volume's name.
    pub source: String,
    /// What kind of thing.
    pub kind: MountedKind,
    /// The path in the sandbox.
    pub target: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// A sandbox's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    image: String,
    hostname: Option<String>,
    labels: BTreeMap<String, String>,
    limits: Limits,
    network: String,
    gateway: Ipv4Addr,
    boot_dir: PathBuf,
    bin_dir: PathBuf,
    gpus: Vec<GpuAccess>,
    dropped_env: BTreeSet<String>,
    docker: DockerMode,
    volume: Option<String>,
    host_mounts: Vec<HostMount>,
    disk_quota: Option<u64>,
}

/// All that differs between two sandboxes' containers.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Who it is.
    pub identity: &'a Identity,
    /// What it holds.
    pub goods: &'a Goods,
    /// The image's reference, and what the image says.
    pub image: (&'a str, &'a ImageConfig),
    /// Processors of the engine's host, when known.
    pub host_cpus: Option<u32>,
    /// The bridge.
    pub network: &'a Network,
    /// The directory on the host that becomes `/run/wolfpack`.
    pub boot_dir: &'a Path,
    /// The directory on the host that holds the sandbox agent's binary.
    pub bin_dir: &'a Path,
    /// The GPUs of the reservation, as this wolf reaches them.
    pub gpus: &'a [GpuAccess],
    /// What it has of Docker.
    pub docker: DockerAccess<'a>,
    /// What it sees of the host.
    pub mounts: &'a [HostMount],
    /// Whether the engine can keep containers to a project quota.
    pub disk_quota: bool,
}

impl ContainerSpec {
    /// The hardened container of these parts.
    #[must_use]
    pub fn new(parts: &Parts<'_>) -> Self {
        let name = parts.identity.sandbox.as_str();
        let hostname_ok =
            name.len() <= HOST_NAME_LEN && !name.starts_with('-') && !name.ends_with('-');
        let dropped_env = if parts.gpus.is_empty() {
            BTreeSet::new()
        } else {
            // The GPU runtime's hook runs on the host with the container's
            // environment: a loader variable of the image would run there.
            let keys = parts.image.1.env.iter().map(|(key, _)| key);
            keys.filter(|key| is_loader_variable(key)).cloned().collect()
        };
        Self {
            image: parts.image.0.to_owned(),
            hostname: hostname_ok.then(|| name.to_owned()),
            labels: labels::write(parts.identity, parts.goods, parts.docker.mode()),
            limits: Limits::of(parts.goods, parts.host_cpus, parts.docker.mode()),
            network: parts.network.name.clone(),
            gateway: parts.network.gateway,
            boot_dir: parts.boot_dir.to_owned(),
            bin_dir: parts.bin_dir.to_owned(),
            gpus: parts.gpus.to_vec(),
            dropped_env,
            docker: parts.docker.mode(),
            volume: match parts.docker {
                DockerAccess::Nested { volume } => Some(volume.to_owned()),
                DockerAccess::None | DockerAccess::Shared => None,
            },
            host_mounts: parts.mounts.to_vec(),
            disk_quota: Some(parts.goods.holding.disk_bytes)
                .filter(|bytes| parts.disk_quota && *bytes > 0),
        }
    }

    /// The image's reference.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The host name; `None` lets the engine choose.
    #[must_use]
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// All labels.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The bridge it is on.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Names it resolves without asking anybody: `name:address`.
    #[must_use]
    pub fn extra_hosts(&self) -> Vec<String> {
        vec![format!("{INTERNAL_HOST}:{}", self.gateway)]
    }

    /// What is mounted in it: the agent's two directories, the volume of its
    /// own engine, and what the wolf's operator allows.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mounted> {
        let bind = |kind, source: &Path, target: &str, read_only| Mounted {
            source: source.to_string_lossy().into_owned(),
            kind,
            target: target.to_owned(),
            read_only,
        };
        let volume = self.volume.iter().map(|name| Mounted {
            source: name.clone(),
            kind: MountedKind::Volume,
            target: DOCKER_DATA.to_owned(),
            read_only: false,
        });
        let ours = [
            bind(MountedKind::Ours, &self.boot_dir, BOOT_DIR, false),
            bind(MountedKind::Ours, &self.bin_dir, &format!("{BOOT_DIR}/{BIN_DIR}"), true),
        ];
        let allowed = self
            .host_mounts
            .iter()
            .map(|host| bind(MountedKind::Host, &host.source, &host.target, host.read_only));
        ours.into_iter().chain(volume).chain(allowed).collect()
    }

    /// What it has of Docker.
    #[must_use]
    pub fn docker(&self) -> DockerMode {
        self.docker
    }

    /// The most bytes it may write to its own layer; absent where the engine
    /// cannot keep it to that.
    #[must_use]
    pub fn disk_quota(&self) -> Option<u64> {
        self.disk_quota
    }

    /// What must be true of this container.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            docker: self.docker,
            mounts: self.host_mounts.iter().map(|host| host.source.clone()).collect(),
        }
    }

    /// What runs as PID 1.
    #[must_use]
    pub fn entrypoint(&self) -> Vec<String> {
        vec![format!("{BOOT_DIR}/{BIN_DIR}/{AGENT_BINARY}")]
    }

    /// The GPUs it may use.
    #[must_use]
    pub fn gpus(&self) -> &[GpuAccess] {
        &self.gpus
    }

    /// What NVIDIA's runtime is to bring in by itself, where it is the engine's
    /// default: the devices that were asked for that way, and otherwise none,
    /// whatever the image says.
    #[must_use]
    pub fn nvidia_visible(&self) -> String {
        let ids = self.gpus.iter().filter_map(|gpu| match gpu {
            GpuAccess::Nvidia { id } => Some(id.as_str()),
            GpuAccess::Cdi { .. } | GpuAccess::Nodes { .. } => None,
        });
        let ids: Vec<&str> = ids.collect();
        if ids.is_empty() { "void".to_owned() } else { ids.join(",") }
    }

    /// Variables of the image that the container must not have.
    #[must_use]
    pub fn dropped_env(&self) -> &BTreeSet<String> {
        &self.dropped_env
    }
}

/// Whether a variable changes what a dynamic loader loads.
#[must_use]
pub fn is_loader_variable(name: &str) -> bool {
    name.starts_with("LD_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goods(cpu_milli: u64, memory_bytes: u64, desktop: bool) -> Goods {
        let mut goods = Goods::default();
        goods.holding.cpu_milli = cpu_milli;
        goods.holding.memory_bytes = memory_bytes;
        goods.holding.desktop = desktop;
        goods
    }

    #[test]
    fn nothing_asked_is_a_default_and_never_unlimited() {
        let limits = Limits::of(&goods(0, 0, false), None, DockerMode::None);
        assert_eq!(limits.cpu_milli, DEFAULT_CPU_MILLI);
        assert_eq!(limits.memory_bytes, DEFAULT_MEMORY_BYTES);
        assert_eq!(limits.pids, DEFAULT_PIDS);
        let nested = Limits::of(&goods(0, 0, false), None, DockerMode::Nested);
        assert_eq!(nested.pids, DEFAULT_NESTED_PIDS);
    }

    #[test]
    fn extremes_are_pulled_to_what_an_engine_takes() {
        let limits = Limits::of(&goods(1, 1, true), Some(2), DockerMode::None);
        assert_eq!((limits.cpu_milli, limits.memory_bytes), (MIN_CPU_MILLI, MIN_MEMORY_BYTES));
        assert!(limits.shared_memory_bytes <= limits.memory_bytes / 2);
        let many = Limits::of(&goods(64_000, 1 << 30, false), Some(2), DockerMode::None);
        assert_eq!(many.cpu_milli, 2_000);
        let huge = Limits::of(&goods(u64::MAX, u64::MAX, false), None, DockerMode::None);
        assert!(i64::try_from(huge.memory_bytes).is_ok());
    }
}

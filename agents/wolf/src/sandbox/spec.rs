//! A sandbox's container, hardened. [`ContainerSpec`] is the only thing an
//! engine makes a container from, and it can only be made by
//! [`ContainerSpec::new`], which takes no mounts, capabilities, namespaces or
//! security options from anybody: what a user's request cannot say, it cannot
//! loosen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use wolfpack_types::sandbox_boot::{AGENT_BINARY, BIN_DIR, BOOT_DIR, INTERNAL_HOST};

use super::labels::{self, Goods, Identity};
use crate::engine::{ImageConfig, Network};

/// What a sandbox gets of each good that its reservation does not state.
const DEFAULT_CPU_MILLI: u64 = 1_000;
const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;
const DEFAULT_PIDS: u32 = 1_024;
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
    fn of(goods: &Goods, host_cpus: Option<u32>) -> Self {
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        // An engine refuses more processors than the host has.
        let most = host_cpus.map_or(u64::MAX, |cpus| u64::from(cpus.max(1)) * 1_000);
        let memory_bytes = or(goods.holding.memory_bytes, DEFAULT_MEMORY_BYTES)
            .clamp(MIN_MEMORY_BYTES, i64::MAX.unsigned_abs());
        let shared = if goods.holding.desktop { DESKTOP_SHARED_MEMORY } else { SHARED_MEMORY };
        Self {
            cpu_milli: or(goods.holding.cpu_milli, DEFAULT_CPU_MILLI).max(MIN_CPU_MILLI).min(most),
            memory_bytes,
            pids: if goods.pids == 0 { DEFAULT_PIDS } else { goods.pids }.max(MIN_PIDS),
            shared_memory_bytes: shared.min(memory_bytes / 2),
        }
    }
}

/// How a granted GPU gets into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuAccess {
    /// By the vendor's runtime, which knows the device by this id.
    Nvidia {
        /// UUID, or PCI address when the driver did not tell the UUID.
        id: String,
    },
    /// By these device nodes.
    Nodes(Vec<PathBuf>),
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
            labels: labels::write(parts.identity, parts.goods),
            limits: Limits::of(parts.goods, parts.host_cpus),
            network: parts.network.name.clone(),
            gateway: parts.network.gateway,
            boot_dir: parts.boot_dir.to_owned(),
            bin_dir: parts.bin_dir.to_owned(),
            gpus: parts.gpus.to_vec(),
            dropped_env,
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

    /// The directories it sees of the host: `(source, target, read-only)`.
    #[must_use]
    pub fn mounts(&self) -> [(&Path, String, bool); 2] {
        [
            (&self.boot_dir, BOOT_DIR.to_owned(), false),
            (&self.bin_dir, format!("{BOOT_DIR}/{BIN_DIR}"), true),
        ]
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
        let limits = Limits::of(&goods(0, 0, false), None);
        assert_eq!(limits.cpu_milli, DEFAULT_CPU_MILLI);
        assert_eq!(limits.memory_bytes, DEFAULT_MEMORY_BYTES);
        assert_eq!(limits.pids, DEFAULT_PIDS);
    }

    #[test]
    fn extremes_are_pulled_to_what_an_engine_takes() {
        let limits = Limits::of(&goods(1, 1, true), Some(2));
        assert_eq!((limits.cpu_milli, limits.memory_bytes), (MIN_CPU_MILLI, MIN_MEMORY_BYTES));
        assert!(limits.shared_memory_bytes <= limits.memory_bytes / 2);
        assert_eq!(Limits::of(&goods(64_000, 1 << 30, false), Some(2)).cpu_milli, 2_000);
        let huge = Limits::of(&goods(u64::MAX, u64::MAX, false), None);
        assert!(i64::try_from(huge.memory_bytes).is_ok());
    }
}

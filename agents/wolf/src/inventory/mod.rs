//! What the host has to give. What cannot be measured is absent, never zero.
//! Blocking, short reads of `/proc` and `/sys`; both roots are parameters, so
//! that tests give made trees.

mod cgroup;
pub mod command;
pub mod gpu;
mod report;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};

use wolfpack_proto::registry::v1::WolfCapacity;
use wolfpack_proto::types::v1 as proto;
use wolfpack_types::DockerMode;
use wolfpack_types::capacity::Capacity;

use crate::config::CapacityConfig;

pub use gpu::toolkit::default_programs as default_toolkit_programs;
pub use gpu::{Encoder, EngineFacts, Found, Gpu, Gpus, HostNvml, Nvml, Sources, Vendor, nvml};
pub use usage::{Usage, UsageMeter};

/// Memory that is never promised: the host's own, the engine's and ours.
const RESERVED_MEMORY: u64 = 256 << 20;
/// Desktops a processor carries.
const DESKTOPS_PER_CPU: u64 = 2;

/// Where the kernel's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// All the host has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// CPU time in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory in bytes, less what is never promised.
    pub memory_bytes: Option<u64>,
    /// Size of the file system that holds the engine's data.
    pub disk_bytes: Option<u64>,
    /// Processes and threads at a time.
    pub pids: Option<u32>,
    /// Desktops at a time.
    pub desktop_slots: u32,
    /// GPUs, each id once.
    pub gpus: Found,
    /// What the engine can give of Docker, beside nothing.
    pub docker_modes: Vec<DockerMode>,
    /// Folders below which sandboxes may mount.
    pub mount_paths: Vec<String>,
    /// Whether sandboxes of every project may.
    pub mounts_every_project: bool,
}

impl Inventory {
    /// Measures the host but its GPUs, which [`Gpus`] know; `data_root` is where
    /// the engine keeps its data. Blocking.
    #[must_use]
    pub fn measure(roots: &Roots, data_root: Option<&Path>) -> Self {
        let limits = cgroup::Limits::read(roots);
        let cpu_milli = least(cpus(roots).map(|cpus| cpus * 1_000), limits.cpu_milli);
        let memory = least(memory_total(roots), limits.memory_bytes);
        let pid_max = number(&roots.proc.join("sys/kernel/pid_max"));
        Self {
            cpu_milli,
            memory_bytes: memory.map(|bytes| bytes.saturating_sub(RESERVED_MEMORY)),
            disk_bytes: data_root.and_then(|root| disk(root).map(|(total, _)| total)),
            pids: least(pid_max, limits.pids).and_then(|pids| u32::try_from(pids).ok()),
            desktop_slots: desktop_slots(cpu_milli),
            ..Self::default()
        }
    }

    /// Replaces what was measured by what the operator says.
    #[must_use]
    pub fn overridden(mut self, by: &CapacityConfig) -> Self {
        self.cpu_milli = by.cpu_milli.or(self.cpu_milli);
        self.memory_bytes = by.memory_bytes.or(self.memory_bytes);
        self.disk_bytes = by.disk_bytes.or(self.disk_bytes);
        self.pids = by.pids.or(self.pids);
        self.desktop_slots = by.desktop_slots.unwrap_or(self.desktop_slots);
        self
    }

    /// What the local ledger counts with.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity {
            cpu_milli: self.cpu_milli,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes,
            desktop_slots: self.desktop_slots,
            devices: self.gpus.devices(),
            encoder_sessions: self.gpus.encoder_pool(),
        }
    }

    /// What the registry is told.
    #[must_use]
    pub fn to_proto(&self) -> WolfCapacity {
        WolfCapacity {
            resources: Some(proto::Resources {
                cpu_milli: self.cpu_milli.map(|cpu| u32::try_from(cpu).unwrap_or(u32::MAX)),
                memory_bytes: self.memory_bytes,
                disk_bytes: self.disk_bytes,
                pids: self.pids,
            }),
            gpus: self.gpus.offered().map(Gpu::to_proto).collect(),
            desktop_slots: self.desktop_slots,
            encoder_sessions: self.gpus.encoder_pool(),
            docker_modes: self
                .docker_modes
                .iter()
                .map(|mode| match mode {
                    DockerMode::None => proto::DockerMode::None.into(),
                    DockerMode::Nested => proto::DockerMode::Nested.into(),
                    DockerMode::Shared => proto::DockerMode::Shared.into(),
                })
                .collect(),
            mount_paths: self.mount_paths.clone(),
            mounts_every_project: self.mounts_every_project,
            gpu_notice: self.gpus.notice(),
        }
    }
}

fn desktop_slots(cpu_milli: Option<u64>) -> u32 {
    let cpus = cpu_milli.unwrap_or(1_000).div_ceil(1_000).max(1);
    u32::try_from(cpus * DESKTOPS_PER_CPU).unwrap_or(u32::MAX)
}

/// Total and free bytes of the file system that holds `path`; when it is not
/// there yet, of the nearest folder above that is.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let there = path.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some((stat.f_blocks.checked_mul(stat.f_frsize)?, stat.f_bavail.checked_mul(stat.f_frsize)?))
}

fn cpus(roots: &Roots) -> Option<u64> {
    let online = fs::read_to_string(roots.sys.join("devices/system/cpu/online")).ok()?;
    count_of_ranges(online.trim())
}

/// How many numbers a list such as `0-3,8` has.
fn count_of_ranges(list: &str) -> Option<u64> {
    let mut count = 0;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

/// A field of `/proc/meminfo` in bytes.
fn meminfo(roots: &Roots, field: &str) -> Option<u64> {
    let text = fs::read_to_string(roots.proc.join("meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

fn memory_total(roots: &Roots) -> Option<u64> {
    meminfo(roots, "MemTotal")
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests;

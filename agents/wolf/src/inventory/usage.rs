//! What of the host is in use now.

use std::fs;
use std::path::{Path, PathBuf};

use wolfpack_proto::types::v1::Resources;

use super::{Roots, cpus, disk, meminfo};

/// Goods in use; absent when not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since the last measurement, in thousandths of a core.
    pub cpu_milli: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk in bytes, of the file system with the engine's data.
    pub disk_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

impl From<Usage> for Resources {
    fn from(usage: Usage) -> Self {
        Self {
            cpu_milli: usage.cpu_milli,
            memory_bytes: usage.memory_bytes,
            disk_bytes: usage.disk_bytes,
            pids: usage.pids,
        }
    }
}

/// Measures usage; CPU time is measured between two calls, so the first knows
/// none.
#[derive(Debug)]
pub struct UsageMeter {
    roots: Roots,
    last: Option<Ticks>,
}

/// Clock ticks of all processors since boot.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl UsageMeter {
    /// A meter that has not measured yet.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { roots, last: None }
    }

    /// Measures now. Blocking, a few short reads.
    pub fn measure(&mut self, data_root: Option<&Path>) -> Usage {
        let ticks = self.ticks();
        let cpu_milli = self.last.zip(ticks).and_then(|(last, now)| {
            let all = now.all.checked_sub(last.all).filter(|all| *all > 0)?;
            let busy = now.busy.saturating_sub(last.busy).min(all);
            u32::try_from(cpus(&self.roots)? * 1_000 * busy / all).ok()
        });
        self.last = ticks;
        let total = meminfo(&self.roots, "MemTotal");
        let available = meminfo(&self.roots, "MemAvailable");
        let data_root = data_root.map(PathBuf::from);
        Usage {
            cpu_milli,
            memory_bytes: total.zip(available).map(|(total, left)| total.saturating_sub(left)),
            disk_bytes: data_root
                .and_then(|root| disk(&root))
                .map(|(total, free)| total.saturating_sub(free)),
            pids: self.pids(),
        }
    }

    fn ticks(&self) -> Option<Ticks> {
        let text = fs::read_to_string(self.roots.proc.join("stat")).ok()?;
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let fields: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest is in user.
        let all = fields.iter().take(8).sum();
        let idle = fields.get(3)? + fields.get(4).copied().unwrap_or(0);
        Some(Ticks { busy: u64::checked_sub(all, idle)?, all })
    }

    fn pids(&self) -> Option<u32> {
        let text = fs::read_to_string(self.roots.proc.join("loadavg")).ok()?;
        text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
    }
}

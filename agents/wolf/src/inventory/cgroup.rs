//! Limits that a cgroup sets on this process, versions 1 and 2. The tightest
//! on the way up to the root counts.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Roots, least, number};

/// More than this is how version 1 writes "no limit".
const UNLIMITED: u64 = 1 << 60;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) cpu_milli: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) pids: Option<u64>,
}

impl Limits {
    pub(super) fn read(roots: &Roots) -> Self {
        let root = roots.sys.join("fs/cgroup");
        let own = fs::read_to_string(roots.proc.join("self/cgroup")).unwrap_or_default();
        let mut limits = Self::default();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let found = if controllers.is_empty() {
                Self::walk(&root, path, Self::version_2)
            } else {
                let mut found = Self::default();
                for controller in controllers.split(',') {
                    let at = root.join(controller);
                    found = found.tightest(Self::walk(&at, path, Self::version_1));
                }
                found
            };
            limits = limits.tightest(found);
        }
        limits
    }

    /// Reads the folder of `path` below `root` and each one above it. A path
    /// that is not there (another cgroup namespace) leaves the root's.
    fn walk(root: &Path, path: &str, read: fn(&Path) -> Self) -> Self {
        let relative = Path::new(path.trim_start_matches('/'));
        let mut limits = read(root);
        let mut at = PathBuf::from(root);
        for part in relative.components() {
            at.push(part);
            if !at.starts_with(root) || part.as_os_str() == ".." {
                break;
            }
            limits = limits.tightest(read(&at));
        }
        limits
    }

    fn version_2(at: &Path) -> Self {
        let cpu = fs::read_to_string(at.join("cpu.max")).ok();
        Self {
            cpu_milli: cpu.as_deref().and_then(|text| {
                let (quota, period) = text.trim().split_once(' ')?;
                milli(quota.parse().ok()?, period.parse().ok()?)
            }),
            memory_bytes: number(&at.join("memory.max")),
            pids: number(&at.join("pids.max")),
        }
    }

    fn version_1(at: &Path) -> Self {
        let quota = number(&at.join("cpu.cfs_quota_us"));
        let period = number(&at.join("cpu.cfs_period_us"));
        Self {
            cpu_milli: quota.zip(period).and_then(|(quota, period)| milli(quota, period)),
            memory_bytes: number(&at.join("memory.limit_in_bytes"))
                .filter(|limit| *limit < UNLIMITED),
            pids: number(&at.join("pids.max")),
        }
    }

    fn tightest(self, other: Self) -> Self {
        Self {
            cpu_milli: least(self.cpu_milli, other.cpu_milli),
            memory_bytes: least(self.memory_bytes, other.memory_bytes),
            pids: least(self.pids, other.pids),
        }
    }
}

fn milli(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1_000)?.checked_div(period)
}

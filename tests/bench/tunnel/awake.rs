//! Cores that do not fall asleep while a latency is measured.

use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::{Child, Command};

/// A loop on each core, of the class that runs only where nothing else wants to:
/// whoever wakes up takes its core at once. With one client most of the time nobody
/// runs, and in a virtual machine a core that sleeps is woken by the host, at a
/// price of many times what is measured; see `docs/benchmarks/tunnel.md`. Each is bound
/// to its core: loops of this class are hardly ever moved, and two that begin on one
/// leave another asleep. Ended when it is dropped.
pub(super) struct Awake(#[allow(dead_code, reason = "they end with it")] Vec<Child>);

impl Awake {
    /// # Errors
    /// When the loops cannot be started; util-linux has `taskset` and `chrt`.
    pub(super) fn start() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let listed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let loops = cores(listed.context("the kernel lists no cores")?)?.into_iter().map(|core| {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &core.to_string(), "chrt", "--idle", "0"]);
            command.args(["sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).kill_on_drop(true).spawn().context("cannot start taskset")
        });
        Ok(Self(loops.collect::<anyhow::Result<_>>()?))
    }
}

/// The cores of a list such as `0-3,6`.
fn cores(listed: &str) -> anyhow::Result<Vec<usize>> {
    let mut cores = Vec::new();
    for part in listed.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>()?..=last.parse::<usize>()?);
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_as_the_kernel_writes_them() {
        assert_eq!(cores("\t0-1\n").unwrap(), [0, 1]);
        assert_eq!(cores("5").unwrap(), [5]);
        assert_eq!(cores("0-2,7,9-10").unwrap(), [0, 1, 2, 7, 9, 10]);
        assert!(cores("").is_err());
    }
}

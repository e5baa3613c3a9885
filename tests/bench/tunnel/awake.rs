//! Cores that do not fall asleep while a latency is measured.

use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::{Child, Command};

/// A loop for each core, of the class that runs only where nothing else wants to:
/// whoever wakes up takes its core at once. With one client most of the time nobody
/// runs, and in a virtual machine a core that sleeps is woken by the host, at a
/// price of many times what is measured; see `docs/benchmarks/tunnel.md`. Ended when
/// it is dropped.
pub(super) struct Awake(#[allow(dead_code, reason = "they end with it")] Vec<Child>);

impl Awake {
    /// # Errors
    /// When the loops cannot be started; util-linux has `chrt`.
    pub(super) fn start() -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let loops = (0..cores).map(|_| {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0", "sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).kill_on_drop(true).spawn().context("cannot start chrt")
        });
        Ok(Self(loops.collect::<anyhow::Result<_>>()?))
    }
}

//! Sets the engine up: the bridge, the relay on it, and what runs already.
//! Done at the start, and again when the bridge is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wolfpack_runtime::{BoxError, Supervisor};
use wolfpack_types::WolfId;

use crate::bridge::Bridges;
use crate::engine::{EngineInfo, quota};
use crate::lifecycle::{Lifecycle, Quota, Ready};
use crate::mounts;
use crate::sandbox::directory;

/// How much of the wolf's id a network's name has.
const WOLF_IN_NAME: usize = 12;
/// How often a bridge is looked for that somebody removes under us, and what
/// nobody needs any more.
const LOOK: Duration = Duration::from_secs(60);
/// The mounts of this process, which are the engine's where it shares them.
const MOUNTS: &str = "/proc/self/mountinfo";

/// What setting up needs.
pub(crate) struct Setup {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) bridges: Arc<Bridges>,
    pub(crate) data_dir: PathBuf,
    /// The engine's socket.
    pub(crate) socket: PathBuf,
    pub(crate) supervisor: Supervisor,
}

/// The name of a wolf's bridge: its own, whoever else uses the engine.
pub(crate) fn network_name(wolf: &WolfId) -> String {
    let wolf = wolf.as_str();
    format!("wolfpack-{}", &wolf[wolf.len().saturating_sub(WOLF_IN_NAME)..])
}

impl Setup {
    /// Sets up, then waits until it is needed again. Ends with an error when
    /// the engine does not answer; run it again.
    pub(crate) async fn run(&self) -> Result<(), BoxError> {
        let stop = self.supervisor.token();
        tokio::select! {
            failed = self.whenever_needed() => failed,
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn whenever_needed(&self) -> Result<(), BoxError> {
        loop {
            self.once().await?;
            tokio::select! {
                () = self.lifecycle.setup_needed() => {
                    tracing::warn!("the bridge of the sandboxes is gone; it is made again");
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn once(&self) -> Result<(), BoxError> {
        let engine = self.lifecycle.engine().info().await?;
        self.close(engine.remapped_root).await?;
        let (network, ports) = self.bridges.shared().await?;
        let (stage, quota) = self.of_the_engine(&engine).await?;
        let first = self.lifecycle.ready_now().is_none();
        let ready = Ready { engine, network, ports, stage, quota };
        if first {
            // What runs is known before anything is admitted.
            self.lifecycle.observer().resync().await?;
            self.lifecycle.clear_orphans().await?;
        }
        self.lifecycle.adopt_docker(&ready).await;
        self.lifecycle.sweep().await?;
        if self.lifecycle.ready_now().as_ref() == Some(&ready) {
            return Ok(());
        }
        if !ready.stage && self.lifecycle.allows_mounts() {
            tracing::warn!(
                "mounts.allow is set, and no sandbox gets a mount: this process cannot bind folders for its engine (docs/wolf.md)"
            );
        }
        tracing::info!(
            engine = ready.engine.version,
            network = ready.network.name,
            bridge = %ready.network.gateway,
            gateway_port = ports.gateway,
            broker_port = ports.broker,
            remaps_users = ready.engine.remapped_root.is_some(),
            holding = self.lifecycle.holding(),
            "the engine is set up"
        );
        self.lifecycle.set_ready(ready);
        Ok(())
    }

    /// Whether folders can be staged for the engine, and what it keeps to a
    /// size: that is only known of one whose mounts we see.
    async fn of_the_engine(&self, engine: &EngineInfo) -> Result<(bool, Quota), BoxError> {
        if !mounts::shares_mounts(&self.socket).await {
            return Ok((false, Quota::default()));
        }
        let mounted = tokio::fs::read_to_string(MOUNTS).await?;
        let quota = Quota {
            containers: quota::of_containers(engine, &mounted),
            volumes: quota::of_volumes(engine, &mounted),
        };
        Ok((mounts::stages(&self.socket).await, quota))
    }

    async fn close(&self, remapped: Option<(u32, u32)>) -> Result<(), BoxError> {
        let data_dir = self.data_dir.clone();
        let closed =
            tokio::task::spawn_blocking(move || directory::close(&data_dir, remapped)).await?;
        closed.map_err(|error| {
            let data_dir = self.data_dir.display();
            format!("{data_dir} cannot be closed to other accounts: {error}; run the agent as root")
                .into()
        })
    }

    /// Takes the bridge away that no sandbox needs, and its rules; the next
    /// start makes them again. One that was never set up may be somebody
    /// else's and stays.
    pub(crate) async fn leave(&self) {
        if self.lifecycle.ready_now().is_some() {
            self.bridges.leave().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_wolves_have_two_networks() {
        let names: std::collections::HashSet<String> =
            (0..1_000).map(|_| network_name(&WolfId::new())).collect();
        assert_eq!(names.len(), 1_000);
        assert_eq!(network_name(&WolfId::parse("w1").unwrap()), "wolfpack-w1");
    }
}

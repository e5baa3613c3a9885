//! Removing containers that no row accounts for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wolfpack_proto::agent::v1::{ContainerStatus, RemoveSandboxRequest};
use wolfpack_types::{SandboxId, WolfId};

use crate::domain::is_orphan;
use crate::fleet::{Containers, Tunnels};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::store::Sandboxes;

/// Fencing epoch for the container of a sandbox without a row: its id never
/// comes back, so nothing newer can follow.
const NO_ROW: i64 = i64::MAX;

/// Wolves that are looked at side by side: one that hangs delays its own.
const AT_A_TIME: usize = 16;

/// Wolf, sandbox and boot of a container.
type Suspect = (WolfId, String, String);

/// What was found of one container.
enum Look {
    /// It is somebody's, or gone, or cannot be judged now.
    Fine,
    /// It looks like an orphan, not for long enough yet.
    Suspect,
    /// It is an orphan, and its wolf did not remove it.
    Stays,
}

/// Removes orphans. A container is one when its boot is no row's, read from the
/// database after the container was seen, and for a while: a boot's row is
/// committed before its container can be made, and the wolf refuses a removal
/// by an owner older than the one it knows.
#[derive(Clone)]
pub(crate) struct Sweep {
    peers: Peers,
    sandboxes: Sandboxes,
    metrics: Metrics,
    grace: Duration,
    wanted: Arc<Notify>,
    /// Since when containers look like orphans.
    suspects: Arc<Mutex<HashMap<Suspect, Instant>>>,
}

impl Sweep {
    pub(crate) fn new(
        peers: Peers,
        sandboxes: Sandboxes,
        metrics: Metrics,
        grace: Duration,
    ) -> Self {
        Self { peers, sandboxes, metrics, grace, wanted: Arc::default(), suspects: Arc::default() }
    }

    /// A wolf's containers were listed afresh: look at them soon.
    pub(crate) fn soon(&self, wolf: &WolfId) {
        tracing::debug!(%wolf, "the wolf's containers are known");
        self.wanted.notify_one();
    }

    /// Looks whenever it is asked to, and regularly, until the token is
    /// cancelled.
    pub(crate) async fn run(
        self,
        containers: Arc<Containers>,
        tunnels: Arc<Tunnels>,
        token: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(self.grace) => {}
            }
            let looks = futures::stream::iter(tunnels.wolves())
                .map(|wolf| self.look_on(wolf, &containers))
                .buffer_unordered(AT_A_TIME)
                .collect::<Vec<HashSet<Suspect>>>();
            let still = tokio::select! {
                () = token.cancelled() => return,
                still = looks => still,
            };
            let still: HashSet<Suspect> = still.into_iter().flatten().collect();
            self.suspects.lock().retain(|suspect, _| still.contains(suspect));
        }
    }

    /// Looks at the containers of one wolf, until one cannot be removed: the
    /// others would fare no better. Answers what still looks like an orphan.
    async fn look_on(&self, wolf: WolfId, containers: &Containers) -> HashSet<Suspect> {
        let mut still = HashSet::new();
        let mut answers = true;
        for container in containers.on(&wolf) {
            let suspect = key(&wolf, &container);
            if !answers {
                if self.suspects.lock().contains_key(&suspect) {
                    still.insert(suspect);
                }
                continue;
            }
            match self.look_at(&wolf, &container).await {
                Look::Fine => {}
                Look::Suspect => drop(still.insert(suspect)),
                Look::Stays => {
                    answers = false;
                    still.insert(suspect);
                }
            }
        }
        still
    }

    /// Removes the container if it has been nobody's for long enough.
    async fn look_at(&self, wolf: &WolfId, container: &ContainerStatus) -> Look {
        let Ok(id) = SandboxId::from_name(&container.sandbox) else { return Look::Fine };
        let row = match self.sandboxes.get(&id).await {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(%error, "a row cannot be read; its container stays");
                return Look::Fine;
            }
        };
        let claim = row.as_ref().and_then(crate::store::Sandbox::claim);
        if !is_orphan(wolf, &container.execution_id, claim.as_ref()) {
            return Look::Fine;
        }
        let since = *self.suspects.lock().entry(key(wolf, container)).or_insert_with(Instant::now);
        if since.elapsed() < self.grace {
            return Look::Suspect;
        }
        let request = RemoveSandboxRequest {
            sandbox: container.sandbox.clone(),
            execution_id: container.execution_id.clone(),
            owner_epoch: row.map_or(NO_ROW, |row| row.owner.epoch),
        };
        match self.peers.runtime(wolf).remove_sandbox(request).await {
            Ok(_) => {
                tracing::info!(%wolf, sandbox = %id, "removed a container of no sandbox");
                self.metrics.orphan_removed();
                Look::Fine
            }
            Err(error) => {
                tracing::warn!(%wolf, sandbox = %id, %error, "an orphan stays for now");
                Look::Stays
            }
        }
    }
}

fn key(wolf: &WolfId, container: &ContainerStatus) -> Suspect {
    (wolf.clone(), container.sandbox.clone(), container.execution_id.clone())
}

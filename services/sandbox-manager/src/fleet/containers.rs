//! Containers as the engines of the wolves see them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wolfpack_proto::agent::v1::watch_sandboxes_response::Event;
use wolfpack_proto::agent::v1::{
    ContainerState, ContainerStatus, ListSandboxesRequest, WatchSandboxesRequest,
};
use wolfpack_rpc::error::from_status;
use wolfpack_runtime::{BoxError, Supervisor};
use wolfpack_types::{ExecutionId, Fault, SandboxId, WolfId};

use crate::domain::{ContainerFact, Exit};
use crate::fleet::{Sweep, Tunnels};
use crate::peers::Peers;
use crate::reconcile::Queue;

/// Pause before a broken watch of a wolf is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// What a cache says of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// The wolf is not watched in step.
    Unknown,
    /// The wolf is watched and does not show it.
    Missing,
    /// It is there.
    There(ContainerFact),
}

/// The containers of every wolf whose tunnel is attached.
pub(crate) struct Containers {
    peers: Peers,
    seen: Mutex<HashMap<WolfId, OnWolf>>,
}

#[derive(Default)]
struct OnWolf {
    in_step: bool,
    containers: HashMap<(SandboxId, String), ContainerStatus>,
}

impl Containers {
    pub(crate) fn new(peers: Peers) -> Self {
        Self { peers, seen: Mutex::default() }
    }

    /// What the watch shows of a boot's container.
    pub(crate) fn glance(
        &self,
        wolf: &WolfId,
        sandbox: &SandboxId,
        execution: &ExecutionId,
    ) -> Sighting {
        let seen = self.seen.lock();
        let Some(on_wolf) = seen.get(wolf) else { return Sighting::Unknown };
        match on_wolf.containers.get(&(sandbox.clone(), execution.to_string())) {
            Some(status) => Sighting::There(fact_of(status)),
            None if on_wolf.in_step => Sighting::Missing,
            None => Sighting::Unknown,
        }
    }

    /// Asks the wolf itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn ask(
        &self,
        wolf: &WolfId,
        sandbox: &SandboxId,
        execution: &ExecutionId,
    ) -> Result<ContainerFact, Fault> {
        let listed = self
            .peers
            .runtime(wolf)
            .list_sandboxes(ListSandboxesRequest {})
            .await
            .map_err(|status| from_status(&status))?
            .into_inner()
            .containers;
        Ok(listed
            .iter()
            .find(|it| it.sandbox == sandbox.name() && it.execution_id == execution.as_str())
            .map_or(ContainerFact::Absent, fact_of))
    }

    /// Notes what a wolf said about a container outside its watch. The watch
    /// may have told of its end already: that stays.
    pub(crate) fn note(&self, wolf: &WolfId, status: ContainerStatus) {
        let Ok(id) = SandboxId::from_name(&status.sandbox) else { return };
        let mut seen = self.seen.lock();
        let key = (id, status.execution_id.clone());
        let containers = &mut seen.entry(wolf.clone()).or_default().containers;
        let ended = containers.get(&key).is_some_and(|it| it.state() == ContainerState::Exited);
        if !ended {
            containers.insert(key, status);
        }
    }

    /// The containers that the watch of a wolf shows; empty when it is not in
    /// step.
    pub(crate) fn on(&self, wolf: &WolfId) -> Vec<ContainerStatus> {
        let seen = self.seen.lock();
        let in_step = seen.get(wolf).filter(|it| it.in_step);
        in_step.map(|it| it.containers.values().cloned().collect()).unwrap_or_default()
    }

    /// Keeps one watch per wolf whose tunnel is attached, until the token is
    /// cancelled.
    pub(crate) async fn run(
        self: Arc<Self>,
        tunnels: Arc<Tunnels>,
        sweep: Sweep,
        queue: Queue,
        supervisor: Supervisor,
    ) {
        let token = supervisor.token();
        let mut changes = tunnels.changes();
        let mut watches: HashMap<WolfId, CancellationToken> = HashMap::new();
        loop {
            let attached = tunnels.wolves();
            watches.retain(|wolf, watch| {
                let stays = attached.contains(wolf);
                if !stays {
                    watch.cancel();
                }
                stays
            });
            for wolf in attached {
                watches.entry(wolf.clone()).or_insert_with(|| {
                    let stop = token.child_token();
                    let watched = Arc::clone(&self).keep_watching(
                        wolf,
                        sweep.clone(),
                        queue.clone(),
                        stop.clone(),
                    );
                    supervisor.spawn("manager.wolf_containers", watched);
                    stop
                });
            }
            tokio::select! {
                () = token.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn keep_watching(
        self: Arc<Self>,
        wolf: WolfId,
        sweep: Sweep,
        queue: Queue,
        stop: CancellationToken,
    ) {
        while !stop.is_cancelled() {
            let broken = tokio::select! {
                () = stop.cancelled() => None,
                watched = self.watch(&wolf, &sweep, &queue) => watched.err(),
            };
            if let Some(on_wolf) = self.seen.lock().get_mut(&wolf) {
                on_wolf.in_step = false;
            }
            if let Some(error) = broken {
                tracing::debug!(%wolf, %error, "the watch of containers broke; opening it again");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }

    async fn watch(&self, wolf: &WolfId, sweep: &Sweep, queue: &Queue) -> Result<(), BoxError> {
        let mut stream = self
            .peers
            .runtime_stream(wolf)
            .watch_sandboxes(WatchSandboxesRequest {})
            .await?
            .into_inner();
        let mut snapshot: Option<Vec<ContainerStatus>> = Some(Vec::new());
        while let Some(message) = stream.message().await? {
            match message.event {
                Some(Event::Container(status)) => match &mut snapshot {
                    Some(listed) => listed.push(status),
                    None => self.saw(wolf, status, queue),
                },
                Some(Event::Bookmark(mark)) if mark.snapshot_complete => {
                    self.replace(wolf, snapshot.take().unwrap_or_default());
                    queue.wolf_changed(wolf.clone());
                    sweep.soon(wolf);
                }
                Some(Event::Bookmark(_)) | None => {}
            }
        }
        Err("the wolf ended the watch of containers".into())
    }

    fn replace(&self, wolf: &WolfId, containers: Vec<ContainerStatus>) {
        let containers = containers
            .into_iter()
            .filter(|it| it.state() != ContainerState::Removed)
            .filter_map(|it| {
                Some(((SandboxId::from_name(&it.sandbox).ok()?, it.execution_id.clone()), it))
            })
            .collect();
        self.seen.lock().insert(wolf.clone(), OnWolf { in_step: true, containers });
    }

    fn saw(&self, wolf: &WolfId, status: ContainerStatus, queue: &Queue) {
        let Ok(id) = SandboxId::from_name(&status.sandbox) else { return };
        let key = (id.clone(), status.execution_id.clone());
        {
            let mut seen = self.seen.lock();
            let containers = &mut seen.entry(wolf.clone()).or_default().containers;
            if status.state() == ContainerState::Removed {
                containers.remove(&key);
            } else {
                containers.insert(key, status);
            }
        }
        queue.wake(&id);
    }
}

/// A container's state as a fact.
pub(crate) fn fact_of(status: &ContainerStatus) -> ContainerFact {
    match status.state() {
        ContainerState::Unspecified => ContainerFact::Unknown,
        ContainerState::Created => ContainerFact::Created,
        ContainerState::Running => ContainerFact::Running,
        ContainerState::Removed => ContainerFact::Absent,
        ContainerState::Exited => ContainerFact::Exited(Exit {
            code: status.exit_code,
            out_of_memory: status.out_of_memory,
        }),
    }
}

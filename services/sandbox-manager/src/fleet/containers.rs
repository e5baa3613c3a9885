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
use wolfpack_types::{ExecutionId, Fault, Reason, SandboxId, WolfId};

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
    /// One entry per wolf that is watched; what it shows was seen by the
    /// present watch or noted since the last one broke.
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
        // Nobody would ever take it away again.
        let Some(on_wolf) = seen.get_mut(wolf) else { return };
        let key = (id, status.execution_id.clone());
        let containers = &mut on_wolf.containers;
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
                    // In this order: what the watch still writes is dropped, too.
                    watch.cancel();
                    self.forget(wolf);
                }
                stays
            });
            for wolf in attached {
                watches.entry(wolf.clone()).or_insert_with(|| {
                    let stop = token.child_token();
                    self.begin(&wolf);
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
                watched = self.watch(&wolf, &sweep, &queue, &stop) => watched.err(),
            };
            if let Some(error) = broken {
                self.broke(&wolf, &stop);
                tracing::debug!(%wolf, %error, "the watch of containers broke; opening it again");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }

    async fn watch(
        &self,
        wolf: &WolfId,
        sweep: &Sweep,
        queue: &Queue,
        stop: &CancellationToken,
    ) -> Result<(), BoxError> {
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
                    None => {
                        if let Some(id) = self.saw(wolf, status, stop) {
                            queue.wake(&id);
                        }
                    }
                },
                Some(Event::Bookmark(mark)) if mark.snapshot_complete => {
                    self.replace(wolf, snapshot.take().unwrap_or_default(), stop);
                    queue.wolf_changed(wolf.clone());
                    sweep.soon(wolf);
                }
                Some(Event::Bookmark(_)) | None => {}
            }
        }
        Err("the wolf ended the watch of containers".into())
    }

    /// The wolf is watched from now on.
    fn begin(&self, wolf: &WolfId) {
        self.seen.lock().insert(wolf.clone(), OnWolf::default());
    }

    /// The wolf is not watched any more.
    fn forget(&self, wolf: &WolfId) {
        self.seen.lock().remove(wolf);
    }

    /// What a watch that broke has shown may be over by now.
    fn broke(&self, wolf: &WolfId, stop: &CancellationToken) {
        self.write(wolf, stop, |on_wolf| *on_wolf = OnWolf::default());
    }

    fn replace(&self, wolf: &WolfId, containers: Vec<ContainerStatus>, stop: &CancellationToken) {
        let containers = containers
            .into_iter()
            .filter(|it| it.state() != ContainerState::Removed)
            .filter_map(|it| {
                Some(((SandboxId::from_name(&it.sandbox).ok()?, it.execution_id.clone()), it))
            })
            .collect();
        self.write(wolf, stop, |on_wolf| *on_wolf = OnWolf { in_step: true, containers });
    }

    /// Takes a change in; answers whose it is.
    fn saw(
        &self,
        wolf: &WolfId,
        status: ContainerStatus,
        stop: &CancellationToken,
    ) -> Option<SandboxId> {
        let id = SandboxId::from_name(&status.sandbox).ok()?;
        let key = (id.clone(), status.execution_id.clone());
        self.write(wolf, stop, |on_wolf| {
            if status.state() == ContainerState::Removed {
                on_wolf.containers.remove(&key);
            } else {
                on_wolf.containers.insert(key, status);
            }
        });
        Some(id)
    }

    /// Writes as the watch that `stop` ends; one that has ended changes nothing.
    fn write(&self, wolf: &WolfId, stop: &CancellationToken, work: impl FnOnce(&mut OnWolf)) {
        let mut seen = self.seen.lock();
        if let Some(on_wolf) = seen.get_mut(wolf).filter(|_| !stop.is_cancelled()) {
            work(on_wolf);
        }
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
            restarted: status.reason.is_empty() && !status.message.is_empty(),
            ended_for: Reason::parse(&status.reason),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn container(sandbox: &SandboxId, execution: &ExecutionId) -> ContainerStatus {
        let mut status = ContainerStatus {
            sandbox: sandbox.name(),
            execution_id: execution.to_string(),
            ..ContainerStatus::default()
        };
        status.set_state(ContainerState::Running);
        status
    }

    #[tokio::test]
    async fn only_a_watch_in_step_or_a_note_since_it_broke_is_believed() {
        let containers = Containers::new(Peers::new(&Config::default()).unwrap());
        let (wolf, stop) = (WolfId::new(), CancellationToken::new());
        let (old, fresh) = (SandboxId::new(), SandboxId::new());
        let boot = ExecutionId::new();
        let there = Sighting::There(ContainerFact::Running);

        containers.note(&wolf, container(&old, &boot));
        assert!(containers.seen.lock().is_empty(), "nobody watches it");
        containers.begin(&wolf);
        assert_eq!(containers.glance(&wolf, &old, &boot), Sighting::Unknown);
        containers.replace(&wolf, vec![container(&old, &boot)], &stop);
        assert_eq!(containers.glance(&wolf, &old, &boot), there);
        assert_eq!(containers.glance(&wolf, &fresh, &boot), Sighting::Missing);

        containers.broke(&wolf, &stop);
        assert_eq!(containers.glance(&wolf, &old, &boot), Sighting::Unknown, "it may have ended");
        containers.note(&wolf, container(&fresh, &boot));
        assert_eq!(containers.glance(&wolf, &fresh, &boot), there);

        stop.cancel();
        containers.forget(&wolf);
        containers.begin(&wolf);
        containers.replace(&wolf, vec![container(&old, &boot)], &stop);
        assert_eq!(containers.saw(&wolf, container(&old, &boot), &stop), Some(old.clone()));
        assert_eq!(containers.glance(&wolf, &old, &boot), Sighting::Unknown, "of the last watch");
        containers.forget(&wolf);
        assert!(containers.seen.lock().is_empty());
    }
}

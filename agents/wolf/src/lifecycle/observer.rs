//! What the engine says became of our containers. Events only say where to
//! look; the look decides. Everything is listed again after the stream of
//! events broke, and every so often anyway, since events get lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use wolfpack_types::{Reason, SandboxId, WolfId};

use crate::admission::Admission;
use crate::engine::{Container, ContainerState, Engine, EngineError};
use crate::sandbox::{Identity, labels};

/// How often to list without being told to.
const RESYNC: Duration = Duration::from_secs(15);
/// How many changes a watcher may be behind.
const BACKLOG: usize = 1_024;

/// A container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Whose it is.
    pub identity: Identity,
    /// The container.
    pub container: Container,
    /// Why it ended, where that is not its own doing; else empty.
    pub message: String,
    /// The reason for which this agent ended it, when it did.
    pub reason: Option<Reason>,
}

/// Who was away, so that nobody saw what happened meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// This agent.
    Agent,
    /// The engine.
    Engine,
}

impl Away {
    fn words(self) -> &'static str {
        match self {
            Self::Agent => {
                "it ended while the wolf's agent did not run: the wolf was stopped or restarted"
            }
            Self::Engine => "it ended while the wolf's engine was away: the engine was restarted",
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is there, in this state.
    Is(Observed),
    /// It is no longer there; as it was last.
    Gone(Observed),
}

type Busy = Arc<dyn Fn(&SandboxId) -> bool + Send + Sync>;

/// Watches the engine; cheap to clone.
#[derive(Clone)]
pub struct Observer {
    engine: Arc<dyn Engine>,
    wolf: WolfId,
    admission: Arc<Mutex<Admission>>,
    busy: Busy,
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<Change>,
}

struct State {
    /// By the engine's id.
    containers: BTreeMap<String, Observed>,
    /// Who was away until the list that comes next.
    away: Option<Away>,
    /// Why this agent is ending containers, by the engine's id.
    endings: BTreeMap<String, (Reason, String)>,
}

impl Default for State {
    fn default() -> Self {
        Self { containers: BTreeMap::new(), away: Some(Away::Agent), endings: BTreeMap::new() }
    }
}

impl Observer {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        wolf: WolfId,
        admission: Arc<Mutex<Admission>>,
        busy: Busy,
    ) -> Self {
        let (changes, _) = broadcast::channel(BACKLOG);
        Self { engine, wolf, admission, busy, state: Arc::default(), changes }
    }

    /// Follows the engine's events until `stop`.
    ///
    /// # Errors
    /// Why the stream of events broke. Run it again; nothing is lost, since it
    /// begins with a list.
    pub async fn follow(&self, stop: &CancellationToken) -> Result<(), EngineError> {
        tokio::select! {
            broke = self.follow_until_broken() => {
                self.state.lock().away.get_or_insert(Away::Engine);
                broke
            }
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn follow_until_broken(&self) -> Result<(), EngineError> {
        // The events reach back a little before the list, so nothing falls
        // between.
        let mut events = self.engine.events(labels::WOLF, self.wolf.as_str());
        self.resync().await?;
        let mut again = tokio::time::interval(RESYNC);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        again.reset();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.look(&event?.container).await?,
                    None => return Err(EngineError::Stream("the engine ended its events".into())),
                },
                _ = again.tick() => self.resync().await?,
            }
        }
    }

    /// Lists the containers and takes every difference over.
    ///
    /// # Errors
    /// When the engine fails; what is known stays.
    pub async fn resync(&self) -> Result<(), EngineError> {
        let before: Vec<String> = self.state.lock().containers.keys().cloned().collect();
        let found = self.engine.list(labels::WOLF, self.wolf.as_str()).await?;
        for id in before.iter().filter(|id| !found.iter().any(|found| found.id == **id)) {
            self.look(id).await?;
        }
        for container in found {
            let same = |seen: &Observed| seen.container.state == container.state;
            let known = self.state.lock().containers.get(&container.id).cloned();
            match known.filter(same) {
                Some(known) => self.note(known.container),
                None => self.look(&container.id).await?,
            }
        }
        self.state.lock().away = None;
        Ok(())
    }

    /// This agent is about to end a container: its end will have this reason.
    pub(super) fn will_end(&self, id: &str, reason: Reason, message: String) {
        self.state.lock().endings.insert(id.to_owned(), (reason, message));
    }

    /// It could not.
    pub(super) fn did_not_end(&self, id: &str) {
        self.state.lock().endings.remove(id);
    }

    pub(super) async fn look(&self, id: &str) -> Result<(), EngineError> {
        match self.engine.inspect(id).await? {
            Some(container) => self.note(container),
            None => self.gone(id),
        }
        Ok(())
    }

    /// Takes note of a container; one that is not ours is passed over.
    pub(super) fn note(&self, container: Container) {
        let Some((identity, goods)) = labels::read(&container.labels) else {
            tracing::warn!(
                container = container.id,
                "a container has damaged labels; it is left alone"
            );
            return;
        };
        if identity.wolf != self.wolf {
            return;
        }
        // What runs holds its goods, whoever started it: after a restart of
        // this agent, or when an engine was slower than its deadline.
        // While something is done to the sandbox, that decides what it holds.
        if !(self.busy)(&identity.sandbox) {
            let mut admission = self.admission.lock();
            if admission.execution(&identity.sandbox).is_none() {
                tracing::info!(sandbox = %identity.sandbox, "adopted a container");
                admission.adopt(identity.clone(), goods);
            }
        }
        let mut state = self.state.lock();
        let id = container.id.clone();
        let ended = container.state == ContainerState::Exited;
        let ending = if ended { state.endings.remove(&id) } else { None };
        let (reason, message) = match (state.containers.get(&id), ending) {
            (Some(seen), _) if seen.container.state == ContainerState::Exited => {
                (seen.reason, seen.message.clone())
            }
            (_, Some((reason, words))) => (Some(reason), words),
            // Ended by the kernel: that is reason enough.
            _ if !ended || container.out_of_memory => (None, String::new()),
            _ => (None, state.away.map(|away| away.words().to_owned()).unwrap_or_default()),
        };
        let observed = Observed { identity, container, message, reason };
        if state.containers.get(&id) != Some(&observed) {
            state.containers.insert(id, observed.clone());
            // Sent under the lock: a watcher's snapshot and what follows it
            // neither overlap nor leave a gap. Nobody listening is fine.
            let _ = self.changes.send(Change::Is(observed));
        }
    }

    pub(super) fn gone(&self, id: &str) {
        let (observed, another) = {
            let mut state = self.state.lock();
            state.endings.remove(id);
            let Some(observed) = state.containers.remove(id) else { return };
            let sandbox = &observed.identity.sandbox;
            let another = state.containers.values().any(|seen| seen.identity.sandbox == *sandbox);
            let _ = self.changes.send(Change::Gone(observed.clone()));
            (observed, another)
        };
        let identity = &observed.identity;
        if !another && !(self.busy)(&identity.sandbox) {
            self.admission.lock().release(&identity.sandbox, Some(&identity.execution));
        }
    }

    /// The containers that are known.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Observed> {
        self.state.lock().containers.values().cloned().collect()
    }

    /// The container of a sandbox.
    #[must_use]
    pub fn of_sandbox(&self, sandbox: &SandboxId) -> Option<Observed> {
        let state = self.state.lock();
        state.containers.values().find(|seen| seen.identity.sandbox == *sandbox).cloned()
    }

    /// The containers that are known, and every change from then on.
    #[must_use]
    pub fn watch(&self) -> (Vec<Observed>, broadcast::Receiver<Change>) {
        let state = self.state.lock();
        (state.containers.values().cloned().collect(), self.changes.subscribe())
    }

    /// How many sandboxes run.
    #[must_use]
    pub fn running(&self) -> usize {
        let state = self.state.lock();
        let runs = |seen: &&Observed| seen.container.state == ContainerState::Running;
        state.containers.values().filter(runs).count()
    }
}

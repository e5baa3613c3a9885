//! Wolves as the registry sees them.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wolfpack_proto::registry::v1::watch_wolves_response::Event;
use wolfpack_proto::registry::v1::{GetWolfRequest, WatchWolvesRequest, WolfState};
use wolfpack_rpc::error::from_status;
use wolfpack_runtime::BoxError;
use wolfpack_types::{Reason, WolfId};

use crate::domain::WolfFact;
use crate::peers::Peers;
use crate::reconcile::Queue;

/// The wolves and their states.
pub(crate) struct Wolves {
    peers: Peers,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Whether the whole snapshot of the present watch has come.
    in_step: bool,
    wolves: HashMap<WolfId, WolfState>,
}

impl Wolves {
    pub(crate) fn new(peers: Peers) -> Self {
        Self { peers, seen: Mutex::default() }
    }

    /// What is known of a wolf without asking anyone.
    pub(crate) fn glance(&self, wolf: &WolfId) -> WolfFact {
        let seen = self.seen.lock();
        match seen.wolves.get(wolf) {
            Some(WolfState::Offline) => WolfFact::Offline,
            Some(_) => WolfFact::Present,
            None => WolfFact::Unknown,
        }
    }

    /// What is known of a wolf. One that a watch in step does not show is
    /// looked up: it may have joined a moment ago, or left for good.
    pub(crate) async fn look(&self, wolf: &WolfId) -> WolfFact {
        let known = self.glance(wolf);
        if known != WolfFact::Unknown || !self.seen.lock().in_step {
            return known;
        }
        let request = GetWolfRequest { name: wolf.name() };
        match self.peers.wolves().get_wolf(request).await {
            Ok(response) => {
                let state = response.into_inner().wolf.map(|wolf| wolf.state()).unwrap_or_default();
                // The watch may know better meanwhile.
                self.seen.lock().wolves.entry(wolf.clone()).or_insert(state);
                self.glance(wolf)
            }
            Err(status) if from_status(&status).reason == Reason::WolfNotFound => WolfFact::Gone,
            Err(status) => {
                tracing::debug!(%wolf, error = %status, "the wolf cannot be looked up");
                WolfFact::Unknown
            }
        }
    }

    /// Watches until the token is cancelled.
    ///
    /// # Errors
    /// When the watch breaks; the caller runs it again.
    pub(crate) async fn run(&self, queue: Queue, token: CancellationToken) -> Result<(), BoxError> {
        let watched = tokio::select! {
            () = token.cancelled() => return Ok(()),
            watched = self.watch(&queue) => watched,
        };
        // What is known stays; only that it is complete is no longer sure.
        self.seen.lock().in_step = false;
        watched
    }

    async fn watch(&self, queue: &Queue) -> Result<(), BoxError> {
        let request = WatchWolvesRequest { resume_revision: 0 };
        let mut stream = self.peers.wolf_watch().watch_wolves(request).await?.into_inner();
        let mut snapshot: Option<HashSet<WolfId>> = Some(HashSet::new());
        while let Some(message) = stream.message().await? {
            match message.event {
                Some(Event::Upserted(wolf)) => {
                    let Ok(id) = WolfId::from_name(&wolf.name) else { continue };
                    match &mut snapshot {
                        Some(listed) => {
                            listed.insert(id.clone());
                            self.seen.lock().wolves.insert(id, wolf.state());
                        }
                        None => self.saw(id, wolf.state(), queue),
                    }
                }
                Some(Event::Deleted(name)) => {
                    let Ok(id) = WolfId::from_name(&name) else { continue };
                    self.seen.lock().wolves.remove(&id);
                    queue.wolf_changed(id);
                }
                Some(Event::Bookmark(mark)) if mark.snapshot_complete => {
                    self.complete(&snapshot.take().unwrap_or_default(), queue);
                }
                Some(Event::Bookmark(_)) | None => {}
            }
        }
        Err("the registry ended the watch of wolves".into())
    }

    fn saw(&self, id: WolfId, state: WolfState, queue: &Queue) {
        let before = self.seen.lock().wolves.insert(id.clone(), state);
        if before != Some(state) {
            tracing::debug!(wolf = %id, ?state, "the wolf changed");
            queue.wolf_changed(id);
        }
    }

    /// The snapshot has come: wolves that it lacks are gone, and any of the
    /// others may have changed.
    fn complete(&self, listed: &HashSet<WolfId>, queue: &Queue) {
        let mut seen = self.seen.lock();
        seen.in_step = true;
        seen.wolves.retain(|id, _| listed.contains(id));
        drop(seen);
        queue.all_changed();
    }
}

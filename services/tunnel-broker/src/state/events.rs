//! Attaches and detaches, for those who watch.

use std::sync::Arc;

use tokio::sync::broadcast;
use wolfpack_proto::tunnel::v1::Tunnel;
use wolfpack_types::Principal;

use crate::domain::access::{Owner, may_see};

/// Events a slow watcher may lag behind.
const BACKLOG: usize = 4096;

/// What happened to a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is there.
    Attached,
    /// It is gone.
    Detached,
}

/// One event.
#[derive(Debug, Clone)]
pub struct TunnelEvent {
    /// Grows by one with each event of this broker's life.
    pub revision: i64,
    /// What happened.
    pub change: Change,
    /// The tunnel.
    pub tunnel: Tunnel,
    /// Whose it was then.
    pub owner: Owner,
}

impl TunnelEvent {
    /// Whether a caller may see the event.
    #[must_use]
    pub fn is_for(&self, caller: &Principal) -> bool {
        may_see(caller, &self.owner)
    }
}

/// The events of a broker. Changed only under the lock of its tunnels, so that
/// a snapshot and what follows it fit together.
#[derive(Debug)]
pub(super) struct Events {
    revision: i64,
    sender: broadcast::Sender<Arc<TunnelEvent>>,
}

/// A snapshot and all that follows.
#[derive(Debug)]
pub struct Watch {
    /// The revision of the snapshot.
    pub revision: i64,
    /// Every tunnel at that revision, with its owner.
    pub tunnels: Vec<(Tunnel, Owner)>,
    /// What follows; lagging is an error.
    pub events: broadcast::Receiver<Arc<TunnelEvent>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { revision: 0, sender: broadcast::channel(BACKLOG).0 }
    }
}

impl Events {
    pub(super) fn push(&mut self, change: Change, tunnel: Tunnel, owner: Owner) {
        self.revision += 1;
        // Nobody watching is fine.
        let _ = self.sender.send(Arc::new(TunnelEvent {
            revision: self.revision,
            change,
            tunnel,
            owner,
        }));
    }

    pub(super) fn watch(&self, tunnels: Vec<(Tunnel, Owner)>) -> Watch {
        Watch { revision: self.revision, tunnels, events: self.sender.subscribe() }
    }
}

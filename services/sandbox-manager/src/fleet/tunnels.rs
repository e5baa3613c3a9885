//! Tunnels as the broker sees them.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wolfpack_proto::tunnel::v1::watch_tunnels_response::Event;
use wolfpack_proto::tunnel::v1::{Tunnel, WatchTunnelsRequest};
use wolfpack_runtime::BoxError;
use wolfpack_types::{Endpoint, ExecutionId, SandboxId, WolfId};

use crate::peers::Peers;

/// The tunnels that are attached.
pub(crate) struct Tunnels {
    peers: Peers,
    seen: Mutex<Seen>,
    /// Steps with every change, so that waiters look again.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Seen {
    in_step: bool,
    sandboxes: HashMap<SandboxId, Session>,
    wolves: HashMap<WolfId, String>,
}

struct Session {
    id: String,
    execution: String,
}

impl Seen {
    fn attach(&mut self, tunnel: &Tunnel) {
        match Endpoint::parse(&tunnel.endpoint) {
            Ok(Endpoint::Sandbox(id)) => {
                let session = Session {
                    id: tunnel.session_id.clone(),
                    execution: tunnel.execution_id.clone(),
                };
                self.sandboxes.insert(id, session);
            }
            Ok(Endpoint::Wolf(id)) => {
                self.wolves.insert(id, tunnel.session_id.clone());
            }
            Err(error) => tracing::warn!(%error, "the broker named an unknown endpoint"),
        }
    }
}

impl Tunnels {
    pub(crate) fn new(peers: Peers) -> Self {
        Self { peers, seen: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Whether the sandbox's own tunnel of this boot is attached; `None` when
    /// it is not known.
    pub(crate) fn attached(&self, sandbox: &SandboxId, execution: &ExecutionId) -> Option<bool> {
        let seen = self.seen.lock();
        let attached =
            seen.sandboxes.get(sandbox).is_some_and(|it| it.execution == execution.as_str());
        // What a broken watch has shown as attached most likely still is.
        if attached || seen.in_step { Some(attached) } else { None }
    }

    /// Wolves whose tunnel is attached.
    pub(crate) fn wolves(&self) -> Vec<WolfId> {
        self.seen.lock().wolves.keys().cloned().collect()
    }

    /// Steps with every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Watches until the token is cancelled.
    ///
    /// # Errors
    /// When the watch breaks; the caller runs it again.
    pub(crate) async fn run(&self, token: CancellationToken) -> Result<(), BoxError> {
        let watched = tokio::select! {
            () = token.cancelled() => return Ok(()),
            watched = self.watch() => watched,
        };
        self.seen.lock().in_step = false;
        self.step();
        watched
    }

    fn step(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn watch(&self) -> Result<(), BoxError> {
        let mut stream =
            self.peers.tunnel_watch().watch_tunnels(WatchTunnelsRequest {}).await?.into_inner();
        let mut snapshot: Option<Vec<Tunnel>> = Some(Vec::new());
        while let Some(message) = stream.message().await? {
            match message.event {
                Some(Event::Attached(tunnel)) => match &mut snapshot {
                    Some(listed) => listed.push(tunnel),
                    None => self.attach(&tunnel),
                },
                Some(Event::Detached(tunnel)) => self.detach(&tunnel),
                Some(Event::Bookmark(mark)) if mark.snapshot_complete => {
                    self.replace(&snapshot.take().unwrap_or_default());
                }
                Some(Event::Bookmark(_)) | None => {}
            }
        }
        Err("the broker ended the watch of tunnels".into())
    }

    fn replace(&self, tunnels: &[Tunnel]) {
        let mut listed = Seen { in_step: true, ..Seen::default() };
        for tunnel in tunnels {
            listed.attach(tunnel);
        }
        // At once: nobody is to see a fleet that is half there.
        *self.seen.lock() = listed;
        self.step();
    }

    fn attach(&self, tunnel: &Tunnel) {
        self.seen.lock().attach(tunnel);
        self.step();
    }

    /// Forgets a tunnel, unless a newer session has taken its place.
    fn detach(&self, tunnel: &Tunnel) {
        match Endpoint::parse(&tunnel.endpoint) {
            Ok(Endpoint::Sandbox(id)) => {
                let mut seen = self.seen.lock();
                if seen.sandboxes.get(&id).is_some_and(|it| it.id == tunnel.session_id) {
                    seen.sandboxes.remove(&id);
                }
            }
            Ok(Endpoint::Wolf(id)) => {
                let mut seen = self.seen.lock();
                if seen.wolves.get(&id).is_some_and(|session| *session == tunnel.session_id) {
                    seen.wolves.remove(&id);
                }
            }
            Err(error) => tracing::warn!(%error, "the broker named an unknown endpoint"),
        }
        self.step();
    }
}

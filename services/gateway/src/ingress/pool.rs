//! Connections that wait for another request of the same credential, to the same
//! port of the same sandbox.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wolfpack_types::SandboxId;

use super::body::Outgoing;

/// What sends requests on one connection.
pub(super) struct Sender {
    requests: SendRequest<Outgoing>,
    opened: Instant,
}

impl Sender {
    /// Of a connection that was just opened.
    pub(super) fn new(requests: SendRequest<Outgoing>) -> Self {
        Self { requests, opened: Instant::now() }
    }

    /// To send one on it.
    pub(super) fn requests(&mut self) -> &mut SendRequest<Outgoing> {
        &mut self.requests
    }

    /// Whether it may serve no more requests: it is closed, or its caller was let
    /// in too long ago.
    fn is_over(&self) -> bool {
        self.requests.is_closed() || self.opened.elapsed() >= LET_IN
    }
}

/// How many may wait under one key: the connections of one busy client.
const PER_KEY: usize = 128;
/// How long one waits that has served nothing yet. A server that takes one
/// connection at a time serves nobody else meanwhile.
const UNUSED: Duration = Duration::from_secs(2);
/// How long a connection serves requests that begin: who may dial is decided when it
/// is opened, and a caller that keeps it busy is asked for again after this. Its end by
/// revocation does not wait for it.
const LET_IN: Duration = Duration::from_secs(60);
/// How often those that waited too long, or that the target closed, are let go.
const SWEEP: Duration = Duration::from_secs(1);

/// Whose connection it is, and where to. The credential is in it by its digest:
/// a connection is what the broker opened for one caller, and never serves
/// another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) who: [u8; 32],
    pub(super) sandbox: SandboxId,
    pub(super) port: NonZeroU16,
}

/// The connections that wait.
pub(super) struct Pool {
    most: usize,
    life: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    by_key: HashMap<Arc<Key>, Vec<Parked>>,
    count: usize,
}

struct Parked {
    sender: Sender,
    since: Instant,
    /// Whether it has served a request.
    used: bool,
}

impl Parked {
    fn fresh(&self, life: Duration) -> bool {
        let life = if self.used { life } else { life.min(UNUSED) };
        !self.sender.is_over() && self.since.elapsed() < life
    }
}

impl Pool {
    /// Keeps `most` connections at a time, each for `life` without work.
    pub(super) fn new(most: usize, life: Duration) -> Self {
        Self { most, life, idle: Mutex::default() }
    }

    /// Takes the connection that was used last.
    pub(super) fn take(&self, key: &Key) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let parked = idle.by_key.get_mut(key)?;
        // One may still be about to end its last request.
        let ready =
            parked.iter().rposition(|one| one.sender.requests.is_ready() && one.fresh(self.life));
        let taken = ready.map(|at| parked.swap_remove(at).sender);
        if parked.is_empty() {
            idle.by_key.remove(key);
        }
        idle.count -= usize::from(taken.is_some());
        taken
    }

    /// Whether one waits under a key.
    pub(super) fn has(&self, key: &Key) -> bool {
        let idle = self.idle.lock();
        idle.by_key.get(key).is_some_and(|parked| parked.iter().any(|one| one.fresh(self.life)))
    }

    /// Keeps a connection for a while; `used` when it has served a request.
    pub(super) fn give(&self, key: Arc<Key>, sender: Sender, used: bool) {
        if sender.is_over() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.count >= self.most {
            return;
        }
        let parked = idle.by_key.entry(key).or_default();
        if parked.len() >= PER_KEY {
            return;
        }
        parked.push(Parked { sender, since: Instant::now(), used });
        idle.count += 1;
    }

    /// Lets go of what is not wanted any more, until `stop`, then of all.
    pub(super) async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
            let mut idle = self.idle.lock();
            idle.by_key.retain(|_, parked| {
                parked.retain(|one| one.fresh(self.life));
                !parked.is_empty()
            });
            idle.count = idle.by_key.values().map(Vec::len).sum();
        }
        *self.idle.lock() = Idle::default();
    }
}

/// A connection that one request uses.
pub(super) struct Lease {
    pool: Arc<Pool>,
    key: Arc<Key>,
    sender: Sender,
}

impl Lease {
    pub(super) fn new(pool: &Arc<Pool>, key: Arc<Key>, sender: Sender) -> Self {
        Self { pool: Arc::clone(pool), key, sender }
    }

    /// The request is over and the connection whole: it may serve another.
    pub(super) fn give_back(self) {
        self.pool.give(self.key, self.sender, true);
    }
}

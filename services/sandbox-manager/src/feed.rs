//! Writes as they happen, whoever wrote them: one poller per replica looks for
//! rows past the revision it knows and tells every watcher and the reconciler.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::WatchConfig;
use crate::reconcile::Queue;
use crate::store::{Error, Removed, Sandbox, Sandboxes};

/// Rows that are read at a time.
const BATCH: u64 = 500;

/// One thing that happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A row was written.
    Written(Arc<Sandbox>),
    /// A row was removed.
    Removed(Arc<Removed>),
    /// Nothing happened; everything up to this revision was told.
    Mark(i64),
}

impl Event {
    pub(crate) fn revision(&self) -> i64 {
        match self {
            Self::Written(sandbox) => sandbox.revision,
            Self::Removed(removed) => removed.revision,
            Self::Mark(revision) => *revision,
        }
    }
}

/// Tells what happens. Events come in order of revision; a receiver that lags
/// more than the configured number behind is told so and must begin anew.
#[derive(Clone)]
pub(crate) struct Feed {
    sandboxes: Sandboxes,
    events: broadcast::Sender<Event>,
    poke: Arc<Notify>,
    /// Everything up to this revision was told.
    at: Arc<AtomicI64>,
    poll: Duration,
    bookmark: Duration,
}

impl Feed {
    /// Begins after what is written now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn open(sandboxes: Sandboxes, config: &WatchConfig) -> Result<Self, Error> {
        Ok(Self {
            at: Arc::new(AtomicI64::new(sandboxes.revision().await?)),
            sandboxes,
            events: broadcast::channel(config.lag).0,
            poke: Arc::default(),
            poll: config.poll,
            bookmark: config.bookmark,
        })
    }

    /// Looks at once: this replica has just written.
    pub(crate) fn poke(&self) {
        self.poke.notify_one();
    }

    /// Events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Polls until the token is cancelled. Only one may run at a time.
    pub(crate) async fn run(&self, queue: Queue, token: CancellationToken) {
        let mut next_mark = Instant::now() + self.bookmark;
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = self.poke.notified() => {}
                () = tokio::time::sleep(self.poll) => {}
            }
            if let Err(error) = self.advance(&queue).await {
                tracing::warn!(%error, "changes cannot be read; trying again");
                continue;
            }
            if Instant::now() >= next_mark {
                next_mark = Instant::now() + self.bookmark;
                // Nobody listening is no error.
                let _ = self.events.send(Event::Mark(self.at.load(Ordering::Relaxed)));
            }
        }
    }

    /// Tells what was written since. Revisions become visible in order, so all
    /// up to the newest one are there when it is; later ones wait for the next
    /// turn.
    async fn advance(&self, queue: &Queue) -> Result<(), Error> {
        let head = self.sandboxes.revision().await?;
        let mut at = self.at.load(Ordering::Relaxed);
        while at < head {
            let written = self.sandboxes.written_after(at, BATCH).await?;
            let removed = self.sandboxes.removed_after(at, BATCH).await?;
            let mut until = head;
            for full in [
                (written.len() as u64 == BATCH).then(|| written.last().map(|it| it.revision)),
                (removed.len() as u64 == BATCH).then(|| removed.last().map(|it| it.revision)),
            ] {
                until = until.min(full.flatten().unwrap_or(head));
            }
            let mut events: Vec<Event> = written
                .into_iter()
                .map(|it| Event::Written(Arc::new(it)))
                .chain(removed.into_iter().map(|it| Event::Removed(Arc::new(it))))
                .filter(|event| event.revision() <= until)
                .collect();
            events.sort_by_key(Event::revision);
            for event in events {
                if let Event::Written(sandbox) = &event {
                    queue.written(sandbox);
                }
                let _ = self.events.send(event);
            }
            at = until;
            self.at.store(at, Ordering::Relaxed);
        }
        Ok(())
    }
}

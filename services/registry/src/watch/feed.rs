//! The newest row of every key, and who wants to hear of the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::process::BoxError;
use wolfpack_types::{Fault, Reason};

use crate::store;

/// One row as it was at a revision.
pub(crate) struct Change<T> {
    /// What it is about; a later change of the same key replaces it.
    pub(crate) key: String,
    pub(crate) revision: i64,
    /// The row; of a deleted one its last content.
    pub(crate) row: Arc<T>,
    pub(crate) deleted: bool,
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            revision: self.revision,
            row: Arc::clone(&self.row),
            deleted: self.deleted,
        }
    }
}

/// Where changes are read.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    /// What a row is.
    type Row: Send + Sync + 'static;

    /// The newest revision that was given out.
    async fn current(&self) -> Result<i64, store::Error>;

    /// Every row with a greater revision, oldest first.
    async fn after(&self, revision: i64) -> Result<Vec<Change<Self::Row>>, store::Error>;

    /// The revision up to which deletions are no longer told.
    async fn floor(&self) -> Result<i64, store::Error>;

    /// Whether a row matters no more and need not be kept in memory.
    fn is_over(&self, change: &Change<Self::Row>) -> bool;
}

/// Bounds of a feed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedConfig {
    /// How often to look for writes of other replicas.
    pub(crate) poll: Duration,
    /// Changes that may wait for one watcher.
    pub(crate) queue: usize,
    /// How long a watch may be without a message.
    pub(crate) bookmark: Duration,
    /// How long the rows may stay unread before what is known of them is too
    /// old to be told.
    pub(crate) blind: Duration,
}

/// A few polls, and never so short that a loaded machine misses them.
pub(crate) fn blind_after(poll: Duration) -> Duration {
    poll.saturating_mul(5).max(Duration::from_secs(5))
}

/// See the module.
pub(crate) struct Feed<S: Source> {
    source: S,
    config: FeedConfig,
    state: Mutex<State<S::Row>>,
    wake: Notify,
    seen: watch::Sender<i64>,
    /// When the rows were read the last time that it worked.
    read_at: Mutex<Instant>,
}

struct State<T> {
    rows: HashMap<String, Change<T>>,
    revision: i64,
    watchers: Vec<Watcher<T>>,
}

struct Watcher<T> {
    queue: mpsc::Sender<Change<T>>,
    slow: Arc<AtomicBool>,
}

/// What a new watcher gets.
pub(super) struct Subscription<T> {
    /// The rows that are there, or that changed since the resumed revision.
    pub(super) first: Vec<Change<T>>,
    /// The revision that `first` brings a watcher to.
    pub(super) revision: i64,
    pub(super) queue: mpsc::Receiver<Change<T>>,
    /// Set when the queue overflowed.
    pub(super) slow: Arc<AtomicBool>,
}

/// How long a new watcher waits for this replica to see what is committed.
const CATCH_UP: Duration = Duration::from_secs(5);

impl<S: Source> Feed<S> {
    /// Reads every row and stands ready; [`Feed::run`] keeps it up to date.
    pub(crate) async fn open(source: S, config: FeedConfig) -> Result<Arc<Self>, store::Error> {
        let state = State { rows: HashMap::new(), revision: 0, watchers: Vec::new() };
        let feed = Self {
            source,
            config,
            state: Mutex::new(state),
            wake: Notify::new(),
            seen: watch::channel(0).0,
            read_at: Mutex::new(Instant::now()),
        };
        feed.read().await?;
        Ok(Arc::new(feed))
    }

    /// Follows the rows until cancelled; an error ends it, to be started again.
    pub(crate) async fn run(&self, token: CancellationToken) -> Result<(), BoxError> {
        while !token.is_cancelled() {
            tokio::select! {
                () = token.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(self.config.poll) => {}
            }
            self.read().await?;
        }
        Ok(())
    }

    /// Says that this process has written: look now.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until a revision is seen; `false` when it is not in time.
    pub(crate) async fn catch_up(&self, revision: i64, timeout: Duration) -> bool {
        let mut seen = self.seen.subscribe();
        self.wake();
        let reached = seen.wait_for(|seen| *seen >= revision);
        tokio::time::timeout(timeout, reached).await.is_ok_and(|seen| seen.is_ok())
    }

    /// The row of a key, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<S::Row>> {
        let state = self.state.lock();
        let change = state.rows.get(key).filter(|change| !change.deleted)?;
        Some(Arc::clone(&change.row))
    }

    /// How many watchers there are.
    pub(crate) fn watchers(&self) -> usize {
        self.state.lock().watchers.len()
    }

    pub(super) fn config(&self) -> FeedConfig {
        self.config
    }

    /// The newest revision, when nothing that it covers waits in `queue`.
    pub(super) fn settled(&self, queue: &mpsc::Receiver<Change<S::Row>>) -> Option<i64> {
        let state = self.state.lock();
        // Changes are queued under the same lock.
        queue.is_empty().then_some(state.revision)
    }

    /// Resolves once the rows could not be read for so long that nobody may
    /// be told any more that there is nothing new.
    pub(super) async fn blind(&self) -> Fault {
        loop {
            let end = *self.read_at.lock() + self.config.blind;
            if Instant::now() >= end {
                return blind();
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// Begins a watch; a resume revision of zero asks for everything.
    pub(super) async fn subscribe(&self, resume: i64) -> Result<Subscription<S::Row>, Fault> {
        if self.read_at.lock().elapsed() >= self.config.blind {
            return Err(blind());
        }
        let current = self.source.current().await.map_err(Fault::from)?;
        if resume > 0 {
            let floor = self.source.floor().await.map_err(Fault::from)?;
            // A revision of the future is of another database.
            if resume < floor || resume > current {
                return Err(Fault::new(
                    Reason::RevisionCompacted,
                    "the revision to resume from is not known any more; watch from zero",
                ));
            }
        }
        // What was committed before the watch began is in its snapshot.
        if !self.catch_up(current, CATCH_UP).await {
            return Err(Fault::new(
                Reason::DependencyUnavailable,
                "this replica has not seen the latest changes yet; watch again",
            )
            .retry_in(CATCH_UP));
        }
        let (sender, queue) = mpsc::channel(self.config.queue.max(1));
        let slow = Arc::new(AtomicBool::new(false));
        let mut state = self.state.lock();
        let wanted = |change: &&Change<S::Row>| {
            if resume > 0 { change.revision > resume } else { !change.deleted }
        };
        let mut first: Vec<_> = state.rows.values().filter(wanted).cloned().collect();
        let revision = state.revision;
        state.watchers.push(Watcher { queue: sender, slow: Arc::clone(&slow) });
        drop(state);
        first.sort_unstable_by_key(|change| change.revision);
        Ok(Subscription { first, revision, queue, slow })
    }

    async fn read(&self) -> Result<(), store::Error> {
        // What is read is as old as the question.
        let asked = Instant::now();
        let after = self.state.lock().revision;
        let current = self.source.current().await?;
        if current <= after {
            *self.read_at.lock() = asked;
            return Ok(());
        }
        // Whatever has a revision up to `current` was committed before that was
        // read, so these rows leave none of it out.
        let changes = self.source.after(after).await?;
        let mut state = self.state.lock();
        for change in changes {
            // Only one task reads, but a lost race would repeat, not skip.
            if change.revision <= state.revision {
                continue;
            }
            state.revision = change.revision;
            state.watchers.retain(|watcher| watcher.offer(&change));
            state.rows.insert(change.key.clone(), change);
        }
        state.watchers.retain(|watcher| !watcher.queue.is_closed());
        state.revision = state.revision.max(current);
        let revision = state.revision;
        drop(state);
        *self.read_at.lock() = asked;
        self.seen.send_replace(revision);
        Ok(())
    }

    /// Drops from memory what is over. Watchers are not told: it is over for
    /// them too.
    pub(crate) async fn forget(&self) -> Result<usize, store::Error> {
        let floor = self.source.floor().await?;
        let mut state = self.state.lock();
        state.watchers.retain(|watcher| !watcher.queue.is_closed());
        let before = state.rows.len();
        state.rows.retain(|_, change| {
            !(self.source.is_over(change) || change.deleted && change.revision <= floor)
        });
        Ok(before - state.rows.len())
    }
}

fn blind() -> Fault {
    Fault::new(
        Reason::DependencyUnavailable,
        "the database was not to be read for some time, so there may be changes that are not \
         known here; watch again from the last revision you have",
    )
    .with("dependency", "database")
    .retry_in(Duration::from_secs(1))
}

impl<T> Watcher<T> {
    /// Queues a change; `false` ends the watcher: gone, or too slow.
    fn offer(&self, change: &Change<T>) -> bool {
        match self.queue.try_send(change.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.slow.store(true, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

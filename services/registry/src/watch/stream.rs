//! One watcher's stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tonic::Status;
use wolfpack_rpc::error::to_status;
use wolfpack_types::{Fault, Reason};

use super::feed::{Change, Feed, Source, Subscription};

/// What a watcher is told.
pub(crate) enum Event<T> {
    /// A row is there or changed, or is gone.
    Change(Change<T>),
    /// Nothing more is known up to this revision.
    Bookmark {
        revision: i64,
        /// Whether this ends the snapshot.
        snapshot_complete: bool,
    },
}

/// The stream that a handler returns: messages made from events.
pub(crate) struct WatchStream<M>(Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>);

impl<M> Stream for WatchStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

struct Run<S: Source, F> {
    feed: Arc<Feed<S>>,
    subscription: Subscription<S::Row>,
    first: std::vec::IntoIter<Change<S::Row>>,
    snapshot_sent: bool,
    ended: bool,
    message: F,
}

impl<M: Send + 'static> WatchStream<M> {
    /// Begins a watch of a feed. `message` makes a message of an event, or
    /// none when the watcher may not see it; an error ends the stream. The
    /// stream ends with `WATCHER_TOO_SLOW` when the queue overflows, and with
    /// `DEPENDENCY_UNAVAILABLE` when the feed cannot read.
    ///
    /// # Errors
    /// `REVISION_COMPACTED`; `DEPENDENCY_UNAVAILABLE` while the feed cannot read.
    pub(crate) async fn begin<S, F>(
        feed: Arc<Feed<S>>,
        resume: i64,
        message: F,
    ) -> Result<Self, Fault>
    where
        S: Source,
        F: FnMut(Event<S::Row>) -> Result<Option<M>, Fault> + Send + 'static,
    {
        let mut subscription = feed.subscribe(resume).await?;
        let first = std::mem::take(&mut subscription.first).into_iter();
        let run = Run { feed, subscription, first, snapshot_sent: false, ended: false, message };
        Ok(Self(Box::pin(futures::stream::unfold(run, |mut run| async move {
            if run.ended {
                return None;
            }
            let item = run.next().await;
            run.ended = item.is_err();
            Some((item.map_err(to_status), run))
        }))))
    }
}

impl<S, M, F> Run<S, F>
where
    S: Source,
    F: FnMut(Event<S::Row>) -> Result<Option<M>, Fault>,
{
    async fn next(&mut self) -> Result<M, Fault> {
        loop {
            let event = self.event().await?;
            if let Some(message) = (self.message)(event)? {
                return Ok(message);
            }
        }
    }

    async fn event(&mut self) -> Result<Event<S::Row>, Fault> {
        if self.subscription.slow.load(Ordering::Acquire) {
            return Err(too_slow());
        }
        if let Some(change) = self.first.next() {
            return Ok(Event::Change(change));
        }
        if !self.snapshot_sent {
            self.snapshot_sent = true;
            let revision = self.subscription.revision;
            return Ok(Event::Bookmark { revision, snapshot_complete: true });
        }
        let idle: Duration = self.feed.config().bookmark;
        loop {
            tokio::select! {
                biased;
                change = self.subscription.queue.recv() => {
                    return change.map(Event::Change).ok_or_else(too_slow);
                }
                fault = self.feed.blind() => return Err(fault),
                () = tokio::time::sleep(idle) => {
                    if let Some(revision) = self.feed.settled(&self.subscription.queue) {
                        return Ok(Event::Bookmark { revision, snapshot_complete: false });
                    }
                }
            }
        }
    }
}

fn too_slow() -> Fault {
    Fault::new(
        Reason::WatcherTooSlow,
        "changes came faster than they were read; resume from the last revision you have",
    )
}

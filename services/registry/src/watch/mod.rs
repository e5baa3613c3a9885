//! Watches: a snapshot, then changes by revision.
//!
//! A [`Feed`] keeps the newest row of every key in memory, tombstones included,
//! fed by reading the rows whose revision is greater than the last one seen:
//! woken at once by this process's own writes, and every poll interval for
//! those of other replicas. Revisions are given out inside the writing
//! transaction by a counter row, so they become visible in order and none is
//! missed. A watcher that resumes gets the rows newer than its revision: the
//! last word on each key, not every word. A feed that cannot read for some time
//! ends its watches: silence means that nothing changed, never that nobody knows.

mod feed;
mod sources;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use feed::{Change, Feed, FeedConfig, Source, blind_after};
pub(crate) use sources::{Revocations, WatchedWolf, Wolves};
pub(crate) use stream::{Event, WatchStream};

//! Which of several schedulers decides. Exactly one holds the shard; the proof
//! is the epoch in the store, everything here is only how soon that is noticed.

mod elector;
mod file_lock;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;
use wolfpack_runtime::clock;

use crate::store::Term;

pub use elector::Elector;
pub use file_lock::FileLock;

/// A leadership as long as it was renewed in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// What every ledger transaction proves itself by.
    pub term: Term,
    /// When the last renewal that succeeded was sent.
    renewed_at: Instant,
    /// How far the database's clock is before this machine's.
    offset: TimeDelta,
}

impl Lead {
    fn new(term: Term, sent_at: Instant) -> Self {
        let here = DateTime::<Utc>::from(clock::now());
        Self { offset: term.database_now() - here, term, renewed_at: sent_at }
    }

    /// The database's time, by this machine's clock and the offset of the last
    /// renewal; whole microseconds, as the store keeps them.
    #[must_use]
    pub fn database_now(&self) -> DateTime<Utc> {
        let now = DateTime::<Utc>::from(clock::now()) + self.offset;
        DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
    }
}

/// Who leads, as far as this process knows.
#[derive(Debug, Clone)]
pub struct Leadership {
    lead: watch::Sender<Option<Lead>>,
    step_down: Duration,
}

impl Leadership {
    /// Nobody leads yet. A leadership that was not renewed for `step_down` is
    /// no longer acted upon.
    #[must_use]
    pub fn new(step_down: Duration) -> Self {
        Self { lead: watch::Sender::new(None), step_down }
    }

    /// The leadership of this process; `None` when it does not lead or is not
    /// sure.
    #[must_use]
    pub fn current(&self) -> Option<Lead> {
        self.lead.borrow().clone().filter(|lead| lead.renewed_at.elapsed() < self.step_down)
    }

    /// Wakes up at each change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Option<Lead>> {
        self.lead.subscribe()
    }

    /// The store said that another one leads.
    pub fn lost(&self, epoch: i64) {
        self.lead.send_if_modified(|lead| {
            let mine = lead.as_ref().is_some_and(|lead| lead.term.epoch() == epoch);
            if mine {
                *lead = None;
            }
            mine
        });
    }

    fn won(&self, lead: Lead) {
        self.lead.send_replace(Some(lead));
    }
}

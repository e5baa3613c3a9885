//! When a peer was last heard of: any byte is life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wolfpack_runtime::clock;

/// The time of the last byte from a peer, cheap to set from every stream of its
/// connection.
#[derive(Debug, Clone)]
pub struct LifeMark {
    base: Instant,
    millis: Arc<AtomicU64>,
}

impl LifeMark {
    /// A peer that was heard of right now.
    #[must_use]
    pub fn now() -> Self {
        Self { base: clock::instant(), millis: Arc::default() }
    }

    /// A byte came.
    pub fn mark(&self) {
        let millis = u64::try_from(clock::instant().duration_since(self.base).as_millis())
            .unwrap_or(u64::MAX);
        self.millis.fetch_max(millis, Ordering::Relaxed);
    }

    /// When the last byte came, to the millisecond.
    #[must_use]
    pub fn heard(&self) -> Instant {
        self.base + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

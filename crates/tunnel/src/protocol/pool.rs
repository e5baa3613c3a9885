//! How many streams to keep parked.

use std::time::{Duration, Instant};

/// The size of a pool of parked streams: a few at rest, doubled by each use,
/// back to rest after a quiet time. Both ends run the same rule, the agent to
/// open streams and the broker to end those that are too many.
#[derive(Debug, Clone)]
pub struct PoolSize {
    rest: usize,
    most: usize,
    quiet: Duration,
    size: usize,
    last_use: Option<Instant>,
}

impl PoolSize {
    /// Streams at rest unless the broker says otherwise.
    pub const REST: usize = 2;
    /// The most streams a pool grows to.
    pub const MOST: usize = 64;
    /// How long a pool stays large without use.
    pub const QUIET: Duration = Duration::from_secs(60);

    /// A pool of `rest` streams that may grow to [`PoolSize::MOST`].
    #[must_use]
    pub fn new(rest: usize) -> Self {
        let rest = rest.clamp(1, Self::MOST);
        Self { rest, most: Self::MOST, quiet: Self::QUIET, size: rest, last_use: None }
    }

    /// The same, but quiet for a little longer: for the side that ends streams,
    /// so that it does so only after the other stopped opening them.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.quiet += Duration::from_secs(5);
        self
    }

    /// A parked stream was used, or one was wanted and there was none.
    pub fn used(&mut self, now: Instant) {
        self.settle(now);
        self.size = self.size.saturating_mul(2).min(self.most);
        self.last_use = Some(now);
    }

    /// How many streams should be parked.
    pub fn wanted(&mut self, now: Instant) -> usize {
        self.settle(now);
        self.size
    }

    /// Whether it was not used for a while: then time alone changes nothing.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.last_use.is_none()
    }

    fn settle(&mut self, now: Instant) {
        if self.last_use.is_some_and(|last| now.saturating_duration_since(last) >= self.quiet) {
            self.size = self.rest;
            self.last_use = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_on_use_and_goes_back_when_quiet() {
        let start = Instant::now();
        let mut pool = PoolSize::new(2);
        assert_eq!(pool.wanted(start), 2);
        let mut sizes = Vec::new();
        for _ in 0..7 {
            pool.used(start);
            sizes.push(pool.wanted(start));
        }
        assert_eq!(sizes, [4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(pool.wanted(start + Duration::from_secs(59)), 64);
        assert_eq!(pool.wanted(start + Duration::from_secs(60)), 2);
        // Use after the quiet time grows from rest, not from where it was.
        pool.used(start + Duration::from_secs(200));
        assert_eq!(pool.wanted(start + Duration::from_secs(200)), 4);
    }

    proptest! {
        #[test]
        fn always_within_bounds(rest in 0_usize..200, steps in prop::collection::vec((0_u64..90, any::<bool>()), 0..60)) {
            let mut now = Instant::now();
            let mut pool = PoolSize::new(rest);
            for (seconds, used) in steps {
                now += Duration::from_secs(seconds);
                if used {
                    pool.used(now);
                }
                let wanted = pool.wanted(now);
                prop_assert!((1..=PoolSize::MOST).contains(&wanted));
            }
        }
    }
}

//! The one place that reads the clock, behind a trait for tests.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// The wall clock, now. Never compare it with another host's: leases and rows
/// use the time of the database.
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// A source of time.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> SystemTime;
    /// The clock that never goes back.
    fn instant(&self) -> Instant;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that moves only when told; both its clocks move together.
#[derive(Debug, Clone)]
pub struct ManualClock {
    start: (SystemTime, Instant),
    passed: Arc<Mutex<Duration>>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn at(start: SystemTime) -> Self {
        Self { start: (start, Instant::now()), passed: Arc::new(Mutex::new(Duration::ZERO)) }
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        *self.passed.lock() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.start.0 + *self.passed.lock()
    }

    fn instant(&self) -> Instant {
        self.start.1 + *self.passed.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let other = clock.clone();
        let before = clock.instant();
        assert_eq!(clock.instant(), before);
        other.advance(Duration::from_secs(7));
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        assert_eq!(clock.instant() - before, Duration::from_secs(7));
    }
}

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

/// The clock that never goes back: that of the runtime, where there is one, so
/// that it stands still and jumps where a test or a simulation says so.
#[must_use]
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
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
        instant()
    }
}

/// A clock that moves only when told; both its clocks move together, unless one
/// is made to jump.
#[derive(Debug, Clone)]
pub struct ManualClock {
    start: Instant,
    state: Arc<Mutex<(SystemTime, Duration)>>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn at(start: SystemTime) -> Self {
        Self { start: instant(), state: Arc::new(Mutex::new((start, Duration::ZERO))) }
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock();
        state.0 += by;
        state.1 += by;
    }

    /// Sets the wall clock, ahead or back, as somebody does to a machine's; the
    /// clock that never goes back does not hear of it.
    pub fn jump_to(&self, wall: SystemTime) {
        self.state.lock().0 = wall;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.state.lock().0
    }

    fn instant(&self) -> Instant {
        self.start + self.state.lock().1
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
        other.jump_to(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH);
        assert_eq!(clock.instant() - before, Duration::from_secs(7));
    }
}

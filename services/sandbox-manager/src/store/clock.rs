//! The time of the database, without asking it each time: our own clock plus
//! the difference that was seen last.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// Follows the database's clock. Exact to about the time of one query; rows
/// that compete (claims) are decided on the database's own time.
#[derive(Debug, Default)]
pub(crate) struct DatabaseClock {
    ahead_micros: AtomicI64,
}

impl DatabaseClock {
    /// Notes what time the database said it is, just now.
    pub(crate) fn observe(&self, database: DateTime<Utc>) {
        let ahead = database - DateTime::<Utc>::from(wolfpack_runtime::clock::now());
        self.ahead_micros.store(ahead.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    }

    /// The time there, now.
    #[must_use]
    pub(crate) fn now(&self) -> DateTime<Utc> {
        let here = DateTime::<Utc>::from(wolfpack_runtime::clock::now());
        here + TimeDelta::microseconds(self.ahead_micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_a_database_that_is_ahead() {
        let clock = DatabaseClock::default();
        let here = DateTime::<Utc>::from(wolfpack_runtime::clock::now());
        clock.observe(here + TimeDelta::hours(2));
        let ahead = clock.now() - here;
        assert!(ahead >= TimeDelta::minutes(119) && ahead <= TimeDelta::minutes(121), "{ahead}");
    }
}

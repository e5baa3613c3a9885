//! When to try again.

use std::time::Duration;

/// The longest that a broker may have an agent wait for its turn.
const LONGEST_TURN: Duration = Duration::from_secs(120);

/// Exponential back-off with full jitter: each wait is anything between zero
/// and a bound that doubles, so that many agents spread over the whole time.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    healthy: Duration,
    failures: u32,
}

impl Default for Backoff {
    /// 0.5 s, doubled up to 30 s, back to the start after 60 s of health.
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30), Duration::from_secs(60))
    }
}

impl Backoff {
    /// A back-off from `first` to `most`, forgotten after `healthy`.
    #[must_use]
    pub fn new(first: Duration, most: Duration, healthy: Duration) -> Self {
        Self { first, most, healthy, failures: 0 }
    }

    /// The next wait. `random` is in `0.0..1.0`; a wait the server asked for is
    /// kept in full, and jitter comes on top of it.
    pub fn next_wait(&mut self, random: f64, hint: Option<Duration>) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        hint.unwrap_or_default() + bound.mul_f64(random.clamp(0.0, 1.0))
    }

    /// The wait for a turn that the server gave: in full, though never more than
    /// 120 s, and with as much jitter on top as a first wait has. The server is
    /// well and says when it has room: that is no failure, and doubles nothing.
    pub fn turn(&self, random: f64, turn: Duration) -> Duration {
        turn.min(LONGEST_TURN) + self.first.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Says how long the last attempt stayed up: only a long one resets.
    pub fn was_up_for(&mut self, up: Duration) {
        if up >= self.healthy {
            self.failures = 0;
        }
    }

    fn bound(&self) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(self.failures.min(16))).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bound_doubles_to_its_most_and_resets_only_after_health() {
        let mut backoff = Backoff::default();
        let bounds: Vec<u128> = (0..9).map(|_| backoff.next_wait(1.0, None).as_millis()).collect();
        assert_eq!(bounds, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        backoff.was_up_for(Duration::from_secs(59));
        assert_eq!(backoff.next_wait(1.0, None), Duration::from_secs(30));
        backoff.was_up_for(Duration::from_secs(60));
        assert_eq!(backoff.next_wait(1.0, None), Duration::from_millis(500));
    }

    #[test]
    fn a_turn_is_no_failure_and_not_for_ever() {
        let mut backoff = Backoff::default();
        backoff.next_wait(1.0, None);
        let seconds = Duration::from_secs;
        for _ in 0..20 {
            assert_eq!(backoff.turn(0.0, seconds(20)), seconds(20));
            assert_eq!(backoff.turn(1.0, seconds(20)), Duration::from_millis(20_500));
            assert_eq!(backoff.turn(0.0, seconds(86_400)), seconds(120));
        }
        assert_eq!(backoff.next_wait(1.0, None), seconds(1));
    }

    proptest! {
        #[test]
        fn waits_stay_within_bounds(failures in 0_usize..100, random in 0.0_f64..1.0, hint in 0_u64..10_000) {
            let mut backoff = Backoff::default();
            for _ in 0..failures {
                backoff.next_wait(random, None);
            }
            let hint = Duration::from_millis(hint);
            let wait = backoff.next_wait(random, Some(hint));
            prop_assert!(wait >= hint && wait <= hint + Duration::from_secs(30));
        }
    }
}

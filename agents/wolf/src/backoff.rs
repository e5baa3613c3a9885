//! Pauses between attempts that fail: 0.5 s, doubled up to 30 s, each a random
//! part of that, so that a fleet that lost its control plane does not come back
//! all at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// An attempt that worked for so long begins anew.
const HEALTHY: Duration = Duration::from_secs(60);

/// The pauses of one thing that is attempted.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait after an attempt that lived for `lived`.
    pub(crate) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY {
            self.next = FIRST;
        }
        let pause = self.next.mul_f64(rand::random::<f64>());
        self.next = (self.next * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_over_after_health() {
        let mut backoff = Backoff::default();
        for round in 0..20 {
            let bound = (FIRST * 2u32.pow(round.min(10))).min(LONGEST);
            assert!(backoff.after(Duration::ZERO) <= bound);
        }
        assert_eq!(backoff.next, LONGEST);
        assert!(backoff.after(HEALTHY) <= FIRST);
    }
}

//! When a start that failed may be tried again.

use std::time::Duration;

use tokio::time::Instant;

use super::super::refusal::Refusal;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// An engine that ran for so long and then went was a good one.
const GOOD: Duration = Duration::from_secs(30);

/// How often it failed in a row, and why the last time.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    last: Option<(Refusal, Instant)>,
}

impl Backoff {
    /// The last failure, when it is too early for another try.
    #[must_use]
    pub fn refuses(&self, now: Instant) -> Option<Refusal> {
        let (refusal, until) = self.last.as_ref()?;
        let left = until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let seconds = left.as_secs() + 1;
        let message = format!("{} (the next try is in {seconds} s)", refusal.message);
        Some(Refusal { cause: refusal.cause, message })
    }

    /// A start failed.
    pub fn failed(&mut self, refusal: Refusal, now: Instant) {
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.last = Some((refusal, now + pause));
    }

    /// An engine that came up at `since` has ended by itself.
    pub fn ended(&mut self, refusal: Refusal, since: Instant, now: Instant) {
        if now.duration_since(since) >= GOOD {
            (self.failures, self.last) = (0, None);
        } else if self.failures == 0 {
            // The first time it is started anew at the next use.
            self.failures = 1;
            self.last = None;
        } else {
            self.failed(refusal, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_pause_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            backoff.failed(Refusal::failed("no"), now);
            let wait = (0..100).find(|s| backoff.refuses(now + Duration::from_secs(*s)).is_none());
            pauses.push(wait.unwrap());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        let told = backoff.refuses(now).unwrap().message;
        assert!(told.starts_with("no (the next try"), "{told}");
    }

    #[test]
    fn one_that_crashes_is_started_at_once_and_one_that_keeps_crashing_is_not() {
        let mut backoff = Backoff::default();
        let since = Instant::now();
        let soon = since + Duration::from_secs(2);
        backoff.ended(Refusal::failed("killed"), since, soon);
        assert_eq!(backoff.refuses(soon), None);
        backoff.ended(Refusal::failed("killed"), since, soon);
        assert!(backoff.refuses(soon).is_some());
        let late = since + Duration::from_secs(60);
        backoff.ended(Refusal::failed("killed"), since, late);
        assert_eq!(backoff.refuses(late), None);
    }
}

//! What follows from a task's end.

use std::time::Duration;

use rand::Rng as _;

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Its end, error or panic stops the process with exit code 1.
    Essential,
    /// It is made anew with a back-off until the shutdown.
    Restart,
    /// Ending is normal; a panic is logged and counted.
    Plain,
}

impl Policy {
    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Essential => "essential",
            Self::Restart => "restart",
            Self::Plain => "plain",
        }
    }
}

/// How one run of a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Ended,
    Failed(String),
    Panicked(String),
}

impl Outcome {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Ended => "it ended".to_owned(),
            Self::Failed(why) => why.clone(),
            Self::Panicked(why) => format!("it panicked: {why}"),
        }
    }

    /// Why an essential task's end stops the process; an end during the
    /// shutdown is what was asked for.
    pub(super) fn failure_of_essential(&self, stopping: bool) -> Option<String> {
        match self {
            Self::Ended if stopping => None,
            outcome => Some(outcome.words()),
        }
    }
}

/// Full jitter: a random pause up to a bound that doubles.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(5);
    const HEALTHY: Duration = Duration::from_secs(30);

    /// The pause after a run that lasted so long.
    pub(super) fn after_run_of(&mut self, lasted: Duration) -> Duration {
        if lasted >= Self::HEALTHY {
            self.failures = 0;
        }
        let bound = (Self::FIRST * 2_u32.saturating_pow(self.failures.min(16))).min(Self::LAST);
        self.failures = self.failures.saturating_add(1);
        rand::rng().random_range(Duration::ZERO..=bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_a_healthy_run_resets_them() {
        let mut backoff = Backoff::default();
        assert!(backoff.after_run_of(Duration::ZERO) <= Backoff::FIRST);
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            longest = longest.max(backoff.after_run_of(Duration::ZERO));
        }
        assert!(longest <= Backoff::LAST && longest > Duration::from_secs(2), "{longest:?}");
        assert!(backoff.after_run_of(Backoff::HEALTHY) <= Backoff::FIRST);
    }

    #[test]
    fn only_an_end_during_the_shutdown_is_no_failure() {
        assert_eq!(Outcome::Ended.failure_of_essential(true), None);
        assert!(Outcome::Ended.failure_of_essential(false).is_some());
        assert!(Outcome::Failed("x".into()).failure_of_essential(true).is_some());
        assert!(Outcome::Panicked("x".into()).failure_of_essential(false).is_some());
    }
}

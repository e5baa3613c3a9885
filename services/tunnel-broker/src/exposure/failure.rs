//! What went wrong with connections that were let in: how often, and the last of
//! it, so that whoever made an exposure need not read the broker's log.

use std::time::SystemTime;

use parking_lot::Mutex;
use wolfpack_types::{Fault, Reason};

/// The most characters that are kept of what an agent says.
const LONGEST: usize = 512;

/// What is kept of a tunnel that was closed: why is between whoever closed it and
/// the agent.
const CLOSED: &str =
    "the tunnel of the connection was closed; connect again once its agent is back";

/// A connection that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub time: SystemTime,
    /// Why, by the table.
    pub reason: Reason,
    /// What happened and what to do.
    pub message: String,
}

/// How many failed, and the last one.
#[derive(Default)]
pub(super) struct Failures(Mutex<(u64, Option<Failure>)>);

impl Failures {
    /// Notes what ended a connection. A client that gave up, or one that the end
    /// of the exposure cut, is no failure of it.
    pub(super) fn note(&self, fault: &Fault) {
        if fault.reason == Reason::Cancelled {
            return;
        }
        let words = match fault.reason {
            Reason::TunnelClosed => CLOSED,
            _ => &fault.message,
        };
        let message = words.chars().take(LONGEST).collect();
        let last = Failure { time: SystemTime::now(), reason: fault.reason, message };
        let mut failures = self.0.lock();
        failures.0 += 1;
        failures.1 = Some(last);
    }

    /// How many there were and the last of them, as of one moment.
    pub(super) fn snapshot(&self) -> (u64, Option<Failure>) {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_last_is_kept_within_a_bound() {
        let failures = Failures::default();
        assert_eq!(failures.snapshot(), (0, None));
        failures.note(&Fault::new(Reason::TunnelLost, "gone"));
        failures.note(&Fault::new(Reason::TargetUnreachable, "x".repeat(9000)));
        failures.note(&Fault::new(Reason::Cancelled, "the caller went away"));
        let (count, last) = failures.snapshot();
        let last = last.unwrap();
        assert_eq!((count, last.reason), (2, Reason::TargetUnreachable));
        assert_eq!(last.message.len(), LONGEST);
        assert!(last.time <= SystemTime::now());
    }

    #[test]
    fn why_somebody_closed_a_tunnel_is_not_kept() {
        let failures = Failures::default();
        failures.note(&Fault::new(Reason::TunnelClosed, "an operator closed it: for Ada"));
        let last = failures.snapshot().1.unwrap();
        assert_eq!((last.reason, last.message.as_str()), (Reason::TunnelClosed, CLOSED));
    }
}

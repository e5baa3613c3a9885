//! What goes wrong with connections, told once for each kind.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wolfpack_types::Reason;

/// A kind that goes on is told again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// What is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Connections that were not made, or broke, for this reason.
    Fault(Reason),
    /// There is no place for a connection.
    Full,
    /// No agent is there.
    Away,
}

/// Which kinds were told: a program that tries again and again, or a page with
/// a hundred pictures, is told of once.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<Kind, Last>>);

#[derive(Debug)]
struct Last {
    at: Instant,
    /// How many since were not told.
    more: u64,
}

impl Told {
    /// Prints `text` unless this kind was told lately; whether it did.
    pub(super) fn tell(&self, kind: Kind, text: impl FnOnce() -> String) -> bool {
        let Some(more) = self.is_due(kind) else { return false };
        let mut text = text();
        if more > 0 {
            text.push_str(&format!("  {more} more like it since it was told last\n"));
        }
        warn(&text);
        true
    }

    /// How many of a kind were not told, when it is time to tell it.
    fn is_due(&self, kind: Kind) -> Option<u64> {
        let now = Instant::now();
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = kinds.get_mut(&kind) else {
            kinds.insert(kind, Last { at: now, more: 0 });
            return Some(0);
        };
        if now.duration_since(last.at) < AGAIN {
            last.more += 1;
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.more))
    }
}

/// On stderr; a reader that has gone does not end the forwarding.
pub(super) fn warn(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_told_once_and_again_after_a_while_with_how_many() {
        let told = Told::default();
        let unreachable = Kind::Fault(Reason::TargetUnreachable);
        assert_eq!(told.is_due(unreachable), Some(0));
        for _ in 0..7 {
            assert_eq!(told.is_due(unreachable), None);
        }
        for other in [Kind::Fault(Reason::DialTimeout), Kind::Full, Kind::Away] {
            assert_eq!(told.is_due(other), Some(0), "another kind");
        }
        tokio::time::advance(AGAIN).await;
        assert_eq!(told.is_due(unreachable), Some(7));
        assert_eq!(told.is_due(unreachable), None);
    }
}

//! What goes wrong with connections, told once for each kind.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wolfpack_types::Reason;

/// A kind that goes on is told again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// Which kinds were told: a program that tries again and again, or a page with
/// a hundred pictures, is told of once.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<Reason, Kind>>);

#[derive(Debug)]
struct Kind {
    at: Instant,
    /// How many since were not told.
    more: u64,
}

impl Told {
    /// Prints `text` unless this kind was told lately.
    pub(super) fn tell(&self, reason: Reason, text: impl FnOnce() -> String) {
        if let Some(more) = self.is_due(reason) {
            let mut text = text();
            if more > 0 {
                text.push_str(&format!("  {more} more like it since it was told last\n"));
            }
            warn(&text);
        }
    }

    /// How many of a kind were not told, when it is time to tell it.
    fn is_due(&self, reason: Reason) -> Option<u64> {
        let now = Instant::now();
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kind) = kinds.get_mut(&reason) else {
            kinds.insert(reason, Kind { at: now, more: 0 });
            return Some(0);
        };
        if now.duration_since(kind.at) < AGAIN {
            kind.more += 1;
            return None;
        }
        kind.at = now;
        Some(std::mem::take(&mut kind.more))
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
        assert_eq!(told.is_due(Reason::TargetUnreachable), Some(0));
        for _ in 0..7 {
            assert_eq!(told.is_due(Reason::TargetUnreachable), None);
        }
        assert_eq!(told.is_due(Reason::DialTimeout), Some(0), "another kind");
        tokio::time::advance(AGAIN).await;
        assert_eq!(told.is_due(Reason::TargetUnreachable), Some(7));
        assert_eq!(told.is_due(Reason::TargetUnreachable), None);
    }
}

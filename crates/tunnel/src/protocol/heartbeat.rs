//! Whether the other side is alive.

use std::time::{Duration, Instant};

/// What to do about a peer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It was heard of lately.
    Heard,
    /// It is quiet: ask.
    Ask,
    /// It was asked and did not answer in time.
    Dead,
}

/// Watches one peer: any byte is life, a ping goes out when it is quiet for an
/// interval, and half an interval later it is dead. With 10 s that is 15 s.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// Silence after which the peer is asked.
    quiet: Duration,
    /// How long it may take to answer.
    patience: Duration,
    heard: Instant,
    asked: Option<Instant>,
}

impl Heartbeat {
    /// Watches a peer that was heard of `now`.
    #[must_use]
    pub fn new(interval: Duration, now: Instant) -> Self {
        let interval = interval.max(Duration::from_millis(10));
        Self { quiet: interval, patience: interval / 2, heard: now, asked: None }
    }

    /// As [`Heartbeat::new`], for the side that asks first: at four fifths of the
    /// interval, so that one question in an interval serves both sides, and HTTP/2
    /// below them, too. The answer may take as long.
    #[must_use]
    pub fn early(interval: Duration, now: Instant) -> Self {
        let usual = Self::new(interval, now);
        Self { quiet: usual.quiet * 4 / 5, ..usual }
    }

    /// Looks at the peer, which was last heard of at `heard`.
    pub fn check(&mut self, now: Instant, heard: Instant) -> Life {
        if heard > self.heard {
            self.heard = heard;
            self.asked = None;
        }
        match self.asked {
            Some(asked) if now.saturating_duration_since(asked) >= self.patience => Life::Dead,
            Some(_) => Life::Heard,
            None if now.saturating_duration_since(self.heard) >= self.quiet => {
                self.asked = Some(now);
                Life::Ask
            }
            None => Life::Heard,
        }
    }

    /// When to look next, as far as is known now: not before then is there
    /// anything to do.
    #[must_use]
    pub fn due(&self) -> Instant {
        match self.asked {
            Some(asked) => asked + self.patience,
            None => self.heard + self.quiet,
        }
    }

    /// How often to look, for whoever looks at other things, too.
    #[must_use]
    pub fn tick(&self) -> Duration {
        (self.quiet / 10).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_dead_within_fifteen_seconds_and_a_byte_saves_it() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut silent = Heartbeat::new(Duration::from_secs(10), start);
        assert_eq!(silent.check(at(9), start), Life::Heard);
        assert_eq!(silent.check(at(10), start), Life::Ask);
        assert_eq!(silent.check(at(11), start), Life::Heard);
        assert_eq!(silent.check(at(15), start), Life::Dead);

        let mut saved = Heartbeat::new(Duration::from_secs(10), start);
        assert_eq!(saved.check(at(10), start), Life::Ask);
        assert_eq!(saved.check(at(14), at(13)), Life::Heard);
        assert_eq!(saved.check(at(22), at(13)), Life::Heard);
        assert_eq!(saved.check(at(23), at(13)), Life::Ask);
    }

    #[test]
    fn who_looks_only_when_it_is_due_finds_the_dead_in_time_and_nothing_in_vain() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut peer = Heartbeat::new(Duration::from_secs(10), start);
        assert_eq!(peer.due(), at(10));
        assert_eq!(peer.check(at(10), at(7)), Life::Heard);
        assert_eq!(peer.due(), at(17));
        assert_eq!(peer.check(at(17), at(7)), Life::Ask);
        assert_eq!(peer.due(), at(22));
        assert_eq!(peer.check(at(22), at(7)), Life::Dead);

        let mut first = Heartbeat::early(Duration::from_secs(10), start);
        assert_eq!(first.check(at(8), start), Life::Ask, "before the other side does");
        assert_eq!(first.due(), at(13));
    }
}

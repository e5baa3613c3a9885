//! Whether a wolf is alive: a pure function of what is known about it and of
//! the time, so that every replica and every caller comes to the same answer.

use std::time::Duration;

use wolfpack_proto::registry::v1 as proto;

use super::time::Micros;

/// The health of a wolf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WolfState {
    /// Fresh heartbeat and attached tunnel.
    Online,
    /// A heartbeat is overdue, or the tunnel is not attached.
    Suspect,
    /// Three heartbeats were missed, or there never was one.
    Offline,
    /// Alive, but its engine does not work.
    Degraded,
}

impl WolfState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Online, Self::Suspect, Self::Offline, Self::Degraded];

    /// The word kept in the database and shown in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Suspect => "SUSPECT",
            Self::Offline => "OFFLINE",
            Self::Degraded => "DEGRADED",
        }
    }

    /// The state of a word; any other word is the state that promises least.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == word).unwrap_or(Self::Offline)
    }

    /// On the wire.
    #[must_use]
    pub fn to_proto(self) -> proto::WolfState {
        match self {
            Self::Online => proto::WolfState::Online,
            Self::Suspect => proto::WolfState::Suspect,
            Self::Offline => proto::WolfState::Offline,
            Self::Degraded => proto::WolfState::Degraded,
        }
    }
}

impl From<proto::WolfState> for WolfState {
    /// An unspecified state is the one that promises least.
    fn from(state: proto::WolfState) -> Self {
        Self::ALL.into_iter().find(|own| own.to_proto() == state).unwrap_or(Self::Offline)
    }
}

/// What is known about a wolf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Whether an agent has registered.
    pub registered: bool,
    /// The last heartbeat, by the database's clock.
    pub last_heartbeat: Option<Micros>,
    /// Whether a broker has its tunnel.
    pub tunnel_attached: bool,
    /// What its agent says is wrong with the engine; empty when it works.
    pub engine_fault: &'a str,
}

/// How long silence is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often a wolf sends a heartbeat.
    pub interval: Duration,
}

impl Timing {
    /// Silence after which a wolf is suspect: one and a half intervals.
    #[must_use]
    pub fn suspect_after(self) -> Duration {
        self.interval.saturating_mul(3) / 2
    }

    /// Silence after which a wolf is offline: three intervals.
    #[must_use]
    pub fn offline_after(self) -> Duration {
        self.interval.saturating_mul(3)
    }
}

/// A state and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: WolfState,
    /// Why, for people. The same facts give the same words at any time, so
    /// words change only when something happened.
    pub message: String,
}

/// Judges the facts at a moment (by the clock that stamped the heartbeat).
#[must_use]
pub fn judge(facts: &Facts<'_>, now: Micros, timing: Timing) -> Verdict {
    let verdict = |state, message: &str| Verdict { state, message: message.to_owned() };
    if !facts.registered {
        return verdict(WolfState::Offline, "joined, but its agent has not registered yet");
    }
    let Some(last) = facts.last_heartbeat else {
        return verdict(WolfState::Offline, "registered, but it has not sent a heartbeat yet");
    };
    let silence = now.since(last);
    if silence >= timing.offline_after() {
        verdict(WolfState::Offline, "three heartbeats were missed")
    } else if silence >= timing.suspect_after() {
        verdict(WolfState::Suspect, "a heartbeat is overdue")
    } else if !facts.tunnel_attached {
        verdict(WolfState::Suspect, "its tunnel is not attached to a broker")
    } else if !facts.engine_fault.is_empty() {
        Verdict {
            state: WolfState::Degraded,
            message: format!("its engine does not work: {}", facts.engine_fault),
        }
    } else {
        verdict(WolfState::Online, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMING: Timing = Timing { interval: Duration::from_secs(10) };

    fn at(silence: Duration, tunnel_attached: bool, engine_fault: &str) -> WolfState {
        let last = Micros(1_000_000_000);
        let facts =
            Facts { registered: true, last_heartbeat: Some(last), tunnel_attached, engine_fault };
        judge(&facts, last.plus(silence), TIMING).state
    }

    #[test]
    fn silence_costs_first_trust_then_life() {
        let ms = Duration::from_millis;
        assert_eq!(at(ms(0), true, ""), WolfState::Online);
        assert_eq!(at(ms(14_999), true, ""), WolfState::Online);
        assert_eq!(at(ms(15_000), true, ""), WolfState::Suspect);
        assert_eq!(at(ms(29_999), true, "x"), WolfState::Suspect);
        assert_eq!(at(ms(30_000), true, ""), WolfState::Offline);
        assert_eq!(at(ms(0), false, ""), WolfState::Suspect);
        assert_eq!(at(ms(0), false, "x"), WolfState::Suspect);
        assert_eq!(at(ms(0), true, "no engine"), WolfState::Degraded);
    }

    #[test]
    fn words_round_trip() {
        for state in WolfState::ALL {
            assert_eq!(WolfState::parse(state.as_str()), state);
            assert_eq!(WolfState::from(state.to_proto()), state);
        }
        assert_eq!(WolfState::parse("?"), WolfState::Offline);
    }

    proptest! {
        #[test]
        fn online_needs_everything(
            registered: bool, beat in proptest::option::of(0i64..100_000_000), tunnel: bool,
            fault in "[a-z]{0,2}", now in 0i64..200_000_000,
        ) {
            let facts = Facts {
                registered, last_heartbeat: beat.map(Micros), tunnel_attached: tunnel, engine_fault: &fault,
            };
            let online = judge(&facts, Micros(now), TIMING).state == WolfState::Online;
            let fresh = beat.is_some_and(|beat| now - beat < 15_000_000);
            prop_assert_eq!(online, registered && fresh && tunnel && fault.is_empty());
        }

        #[test]
        fn time_alone_never_makes_a_wolf_better(silence in 0u64..60_000, more in 0u64..60_000, tunnel: bool) {
            let rank = |state| match state {
                WolfState::Online => 0, WolfState::Degraded => 1, WolfState::Suspect => 2, WolfState::Offline => 3,
            };
            let early = at(Duration::from_millis(silence), tunnel, "");
            let late = at(Duration::from_millis(silence + more), tunnel, "");
            prop_assert!(rank(late) >= rank(early));
        }
    }
}

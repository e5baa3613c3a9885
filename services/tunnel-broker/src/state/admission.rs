//! How many agents may attach in a second.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use wolfpack_runtime::clock;
use wolfpack_tunnel::reasons::TURN;
use wolfpack_types::{Fault, Principal, Reason};

use super::turns::Turns;

/// How often one agent may attach in a second; an honest one backs off.
const OWN_ATTACHES: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
/// How often at once, as after a few quick restarts.
const OWN_ATTACHES_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// The clock of the runtime, which a simulation moves.
#[derive(Debug, Clone, Copy)]
struct RuntimeClock;

impl Clock for RuntimeClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        clock::instant()
    }
}

type Limiter<K, S> = RateLimiter<K, S, RuntimeClock, NoOpMiddleware<Instant>>;

/// The rates of attaches: of all agents, and of each.
pub(super) struct Admission {
    all: Limiter<NotKeyed, InMemoryState>,
    own: Limiter<String, DefaultKeyedStateStore<String>>,
    turns: Turns,
}

impl Admission {
    /// At most `per_second` of all agents, and as many again at once.
    pub(super) fn new(per_second: u32) -> Self {
        let turns = Turns::new(per_second);
        let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let own = Quota::per_second(OWN_ATTACHES).allow_burst(OWN_ATTACHES_AT_ONCE);
        Self {
            all: RateLimiter::direct_with_clock(Quota::per_second(per_second), RuntimeClock),
            own: RateLimiter::new(own, DefaultKeyedStateStore::default(), RuntimeClock),
            turns,
        }
    }

    /// Takes one attach. What one agent asks for beyond its own share takes
    /// nothing from what all of them share.
    ///
    /// # Errors
    /// `HANDSHAKES_LIMITED`, with a hint when to try: where too many come at once,
    /// a turn of this agent's own.
    pub(super) fn check(&self, agent: &Principal) -> Result<(), Fault> {
        self.own.check_key(&agent.to_string()).map_err(|_| {
            Fault::new(
                Reason::HandshakesLimited,
                "this agent attaches too often; keep the session, and wait before trying again",
            )
            .retry_in(Duration::from_secs(1))
        })?;
        self.all.check().map_err(|_| {
            Fault::new(
                Reason::HandshakesLimited,
                "too many agents attach at once; wait and try again",
            )
            .with(TURN, "given")
            .retry_in(self.turns.next(clock::instant(), rand::random()))
        })
    }

    /// How many agents it remembers.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.own.len()
    }

    /// Forgets agents that have not attached lately.
    pub(super) fn sweep(&self) {
        self.own.retain_recent();
        self.own.shrink_to_fit();
    }
}

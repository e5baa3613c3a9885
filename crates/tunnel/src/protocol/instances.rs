//! Which process speaks for an endpoint: the newest one.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use wolfpack_types::Endpoint;

/// How many older instances of an endpoint are remembered.
const PAST: usize = 16;
/// How long an endpoint that is away is remembered.
const MEMORY: Duration = Duration::from_secs(3600);

/// An instance may attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Grows with each new instance of the endpoint.
    pub generation: i64,
    /// Whether it took over from another instance.
    pub takeover: bool,
}

/// A newer instance took over before; this one must not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded;

#[derive(Debug)]
struct History {
    instance: String,
    generation: i64,
    past: VecDeque<String>,
    seen: Instant,
}

/// Remembers the instances of every endpoint, so that an older one that comes
/// back late does not fight the newer one.
#[derive(Debug, Default)]
pub struct InstanceLedger {
    endpoints: HashMap<Endpoint, History>,
}

impl InstanceLedger {
    /// An instance wants to attach. `clock_micros` is wall time, by which
    /// generations keep growing over a restart of the broker.
    ///
    /// # Errors
    /// [`Superseded`] when a newer instance took over from this one.
    pub fn admit(
        &mut self,
        endpoint: &Endpoint,
        instance: &str,
        clock_micros: i64,
        now: Instant,
    ) -> Result<Admitted, Superseded> {
        let Some(history) = self.endpoints.get_mut(endpoint) else {
            self.endpoints.insert(
                endpoint.clone(),
                History {
                    instance: instance.to_owned(),
                    generation: clock_micros,
                    past: VecDeque::new(),
                    seen: now,
                },
            );
            return Ok(Admitted { generation: clock_micros, takeover: false });
        };
        history.seen = now;
        if history.instance == instance {
            return Ok(Admitted { generation: history.generation, takeover: false });
        }
        if history.past.iter().any(|past| past == instance) {
            return Err(Superseded);
        }
        let old = std::mem::replace(&mut history.instance, instance.to_owned());
        history.past.push_back(old);
        if history.past.len() > PAST {
            history.past.pop_front();
        }
        history.generation = clock_micros.max(history.generation.saturating_add(1));
        Ok(Admitted { generation: history.generation, takeover: true })
    }

    /// Forgets endpoints that were not seen for an hour and are not attached.
    pub fn forget(&mut self, now: Instant, attached: impl Fn(&Endpoint) -> bool) {
        self.endpoints.retain(|endpoint, history| {
            now.saturating_duration_since(history.seen) < MEMORY || attached(endpoint)
        });
    }

    /// How many endpoints are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wolfpack_types::WolfId;

    fn endpoint() -> Endpoint {
        Endpoint::Wolf(WolfId::new())
    }

    #[test]
    fn the_newest_wins_and_the_old_one_may_not_come_back() {
        let (mut ledger, wolf, now) = (InstanceLedger::default(), endpoint(), Instant::now());
        let first = ledger.admit(&wolf, "one", 100, now).unwrap();
        assert_eq!(first, Admitted { generation: 100, takeover: false });
        let second = ledger.admit(&wolf, "two", 50, now).unwrap();
        assert_eq!(second, Admitted { generation: 101, takeover: true }, "clock went back");
        assert_eq!(ledger.admit(&wolf, "one", 200, now), Err(Superseded));
        let again = ledger.admit(&wolf, "two", 200, now).unwrap();
        assert_eq!(again, Admitted { generation: 101, takeover: false });
    }

    #[test]
    fn only_endpoints_that_are_away_are_forgotten() {
        let (mut ledger, away, here, now) =
            (InstanceLedger::default(), endpoint(), endpoint(), Instant::now());
        ledger.admit(&away, "a", 1, now).unwrap();
        ledger.admit(&here, "b", 1, now).unwrap();
        ledger.forget(now + MEMORY, |endpoint| endpoint == &here);
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger.admit(&here, "c", 2, now).map(|admitted| admitted.takeover), Ok(true));
    }

    proptest! {
        #[test]
        fn generations_only_grow_and_memory_is_bounded(steps in prop::collection::vec((0_u8..30, 0_i64..1000), 0..200)) {
            let (mut ledger, wolf, now) = (InstanceLedger::default(), endpoint(), Instant::now());
            let mut last = i64::MIN;
            for (instance, clock) in steps {
                if let Ok(admitted) = ledger.admit(&wolf, &instance.to_string(), clock, now) {
                    prop_assert!(admitted.generation >= last);
                    prop_assert!(!admitted.takeover || admitted.generation > last);
                    last = admitted.generation;
                }
                prop_assert!(ledger.endpoints.values().all(|history| history.past.len() <= PAST));
            }
        }
    }
}

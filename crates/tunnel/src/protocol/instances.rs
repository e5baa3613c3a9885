//! Which process speaks for an endpoint: the newest one.

use std::cmp::Ordering;
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

/// How far ahead of the broker's a clock may be for its word to count.
pub const AHEAD_MICROS: i64 = 300 * 1_000_000;

/// A process that wants to attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process<'a> {
    /// The instance.
    pub instance: &'a str,
    /// When it started by its own clock, in microseconds since 1970, if it says.
    pub started_micros: Option<i64>,
}

/// Why an instance may not attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A newer instance took over before; this one must not come back.
    Superseded,
    /// The instance that is attached started later.
    Older,
}

#[derive(Debug)]
struct History {
    instance: String,
    started: Option<i64>,
    generation: i64,
    past: VecDeque<String>,
    seen: Instant,
}

/// Remembers the instances of every endpoint, so that an older one that comes
/// back late does not fight the newer one.
///
/// Newer is what started later, as far as both say so credibly; else what came
/// later. Starts are compared only while the other instance is attached: a wolf
/// whose clock went back waits for its own dead session at most.
#[derive(Debug, Default)]
pub struct InstanceLedger {
    endpoints: HashMap<Endpoint, History>,
}

impl InstanceLedger {
    /// An instance wants to attach; `attached` says whether a session of the
    /// endpoint is there. `clock_micros` is wall time, by which generations keep
    /// growing over a restart of the broker.
    ///
    /// # Errors
    /// [`Refused`] when a newer instance is attached, or took over before.
    pub fn admit(
        &mut self,
        endpoint: &Endpoint,
        process: Process<'_>,
        attached: bool,
        clock_micros: i64,
        now: Instant,
    ) -> Result<Admitted, Refused> {
        let Process { instance, started_micros } = process;
        let started =
            started_micros.filter(|started| *started <= clock_micros.saturating_add(AHEAD_MICROS));
        let Some(history) = self.endpoints.get_mut(endpoint) else {
            self.endpoints.insert(
                endpoint.clone(),
                History {
                    instance: instance.to_owned(),
                    started,
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
        let order = match (started, history.started) {
            (Some(own), Some(other)) => own.cmp(&other),
            _ => Ordering::Equal,
        };
        if order == Ordering::Less && attached {
            return Err(Refused::Older);
        }
        // One that is newer than whoever took over from it did so while it was
        // away, and was the older one all along.
        if order != Ordering::Greater && history.past.iter().any(|past| past == instance) {
            return Err(Refused::Superseded);
        }
        history.past.retain(|past| past != instance);
        let old = std::mem::replace(&mut history.instance, instance.to_owned());
        history.started = started;
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
#[path = "instances_tests.rs"]
mod tests;

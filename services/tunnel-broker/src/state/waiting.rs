//! Dials that wait for an agent that is away.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use wolfpack_types::{Endpoint, Fault, Reason};

/// Who waits for whom, bounded for each endpoint and over all.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    endpoints: HashMap<Endpoint, (usize, Arc<Notify>)>,
}

/// One place among those that wait; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    waiting: &'a Waiting,
    endpoint: Endpoint,
    /// Notified when the endpoint attached, or may be another's or nobody's now.
    pub(super) news: Arc<Notify>,
}

impl Waiting {
    /// Takes a place.
    ///
    /// # Errors
    /// `DIALS_LIMITED` when as many wait as may.
    pub(super) fn enter(
        &self,
        endpoint: &Endpoint,
        each: usize,
        all: usize,
    ) -> Result<Place<'_>, Fault> {
        let mut state = self.state.lock();
        let present = state.endpoints.get(endpoint).map_or(0, |(count, _)| *count);
        if present >= each || state.total >= all {
            return Err(Fault::new(
                Reason::DialsLimited,
                "too many dials wait for this endpoint; try again later",
            )
            .about(endpoint.to_string()));
        }
        state.total += 1;
        let entry = state.endpoints.entry(endpoint.clone()).or_default();
        entry.0 += 1;
        Ok(Place { waiting: self, endpoint: endpoint.clone(), news: entry.1.clone() })
    }

    /// Wakes all that wait for an endpoint: there is something to look at.
    pub(super) fn tell(&self, endpoint: &Endpoint) {
        if let Some((_, notify)) = self.state.lock().endpoints.get(endpoint) {
            notify.notify_waiters();
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.state.lock().total
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.waiting.state.lock();
        state.total -= 1;
        if let Some(entry) = state.endpoints.get_mut(&self.endpoint) {
            entry.0 -= 1;
            if entry.0 == 0 {
                state.endpoints.remove(&self.endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::WolfId;

    #[test]
    fn places_are_bounded_and_given_back() {
        let (waiting, a, b) =
            (Waiting::default(), Endpoint::Wolf(WolfId::new()), Endpoint::Wolf(WolfId::new()));
        let first = waiting.enter(&a, 1, 2).unwrap();
        assert_eq!(waiting.enter(&a, 1, 2).unwrap_err().reason, Reason::DialsLimited);
        let second = waiting.enter(&b, 1, 2).unwrap();
        assert!(waiting.enter(&Endpoint::Wolf(WolfId::new()), 1, 2).is_err(), "over all");
        drop(first);
        assert!(waiting.enter(&a, 1, 2).is_ok());
        drop(second);
        assert_eq!(waiting.len(), 0);
        assert!(waiting.state.lock().endpoints.is_empty());
    }
}

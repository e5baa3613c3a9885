//! Which broker an endpoint is attached at, for when there are several.
//!
//! Each broker writes one row for each of its sessions, again every
//! [`REFRESH`], and a row that is not written again is gone after [`TTL`]. The
//! rows of one endpoint at several brokers are of one instance: what an older
//! instance still writes, however late it comes, loses.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use wolfpack_types::Endpoint;

/// How long a row is good.
pub const TTL: Duration = Duration::from_secs(15);
/// How often it is written again.
pub const REFRESH: Duration = Duration::from_secs(5);
/// How long the newest generation of an endpoint without rows is remembered:
/// longer than any write of an older one is on its way.
const MEMORY: Duration = Duration::from_secs(300);

/// What one broker says of one of its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The broker's id: it names one process.
    pub broker: String,
    /// Where other brokers reach it, `host:port`.
    pub address: String,
    /// Generation of the instance that is attached there.
    pub generation: i64,
    /// When the row is no longer good.
    pub expires: Instant,
}

/// A row was not taken: a newer instance of the endpoint is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    /// The newest generation.
    pub newest: i64,
}

#[derive(Debug)]
struct Rows {
    newest: i64,
    seen: Instant,
    by_broker: BTreeMap<String, Route>,
}

/// The rows of all endpoints, keyed by (endpoint, broker).
#[derive(Debug, Default)]
pub struct RouteTable {
    endpoints: HashMap<Endpoint, Rows>,
}

impl RouteTable {
    /// A broker writes its row of an endpoint, the first time or again; it is
    /// good until [`TTL`] after `now`. A newer generation takes away the rows of
    /// older ones, at every broker.
    ///
    /// # Errors
    /// [`Stale`] for a generation that is not the newest; nothing is changed.
    pub fn put(
        &mut self,
        endpoint: &Endpoint,
        broker: &str,
        address: &str,
        generation: i64,
        now: Instant,
    ) -> Result<(), Stale> {
        let rows = self.endpoints.entry(endpoint.clone()).or_insert_with(|| Rows {
            newest: generation,
            seen: now,
            by_broker: BTreeMap::new(),
        });
        if generation < rows.newest {
            return Err(Stale { newest: rows.newest });
        }
        if generation > rows.newest {
            rows.newest = generation;
            rows.by_broker.clear();
        }
        rows.seen = now;
        let route = Route {
            broker: broker.to_owned(),
            address: address.to_owned(),
            generation,
            expires: now + TTL,
        };
        rows.by_broker.insert(broker.to_owned(), route);
        Ok(())
    }

    /// The session of a broker is over. What a newer one has written there since
    /// stays.
    pub fn remove(&mut self, endpoint: &Endpoint, broker: &str, generation: i64) {
        if let Some(rows) = self.endpoints.get_mut(endpoint)
            && rows.by_broker.get(broker).is_some_and(|route| route.generation == generation)
        {
            rows.by_broker.remove(broker);
        }
    }

    /// The good rows of an endpoint, in the order of the brokers' ids.
    #[must_use]
    pub fn find(&self, endpoint: &Endpoint, now: Instant) -> Vec<Route> {
        let rows =
            self.endpoints.get(endpoint).into_iter().flat_map(|rows| rows.by_broker.values());
        rows.filter(|route| route.expires > now).cloned().collect()
    }

    /// Forgets rows that are no longer good, and endpoints of long ago.
    pub fn sweep(&mut self, now: Instant) {
        self.endpoints.retain(|_, rows| {
            rows.by_broker.retain(|_, route| route.expires > now);
            !rows.by_broker.is_empty() || now.saturating_duration_since(rows.seen) < MEMORY
        });
    }
}

/// Where a dial goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// To the session in this very process.
    Own,
    /// To another broker, which must have the session itself.
    Forward(Route),
    /// The rows may be stale: read them once more and ask again.
    ReadAgain,
    /// Nobody has the endpoint: wait until it attaches, or the deadline.
    Away,
}

/// The way of one dial: the session of one's own first, else one hop, and when
/// nobody is there the rows are read once more. A dial that came by a hop makes
/// none itself, so two brokers that each take the other for the owner do not
/// pass it to and fro.
#[derive(Debug, Clone)]
pub struct Forwarding {
    own: String,
    forwarded: bool,
    read_again: bool,
    tried: Vec<(String, i64)>,
}

impl Forwarding {
    /// A dial at the broker `own`; `forwarded` says whether another one sent it.
    #[must_use]
    pub fn new(own: impl Into<String>, forwarded: bool) -> Self {
        Self { own: own.into(), forwarded, read_again: false, tried: Vec::new() }
    }

    /// The next step, given whether the endpoint is attached here and what rows
    /// it has now. To be asked again after a hop that found nobody. A session is
    /// tried at most once.
    pub fn next(&mut self, attached: bool, routes: &[Route]) -> Next {
        if attached {
            return Next::Own;
        }
        if self.forwarded {
            return Next::Away;
        }
        let hop = routes.iter().find(|route| {
            let tried = |(broker, generation): &(String, i64)| {
                *broker == route.broker && *generation == route.generation
            };
            route.broker != self.own && !self.tried.iter().any(tried)
        });
        if let Some(hop) = hop {
            self.tried.push((hop.broker.clone(), hop.generation));
            return Next::Forward(hop.clone());
        }
        if std::mem::replace(&mut self.read_again, true) { Next::Away } else { Next::ReadAgain }
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;

//! Who reached what through a port of the broker: one line for each connection
//! and one for its end, as dials of people have. What is known of whoever
//! connects is the address. What is over a bound has no line: an exposure counts
//! those, and a flood of them fills no log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use wolfpack_tunnel::splice::LinkEnd;
use wolfpack_types::Fault;

use super::book::Exposure;

/// Somebody who was let in.
pub(super) struct Visitor {
    exposure: Arc<Exposure>,
    client: SocketAddr,
}

impl Visitor {
    pub(super) fn new(exposure: Arc<Exposure>, client: SocketAddr) -> Self {
        Self { exposure, client }
    }

    /// The target was not reached.
    pub(super) fn refused(&self, fault: &Fault) {
        let spec = &self.exposure.spec;
        tracing::info!(
            audit = "tunnel.exposure_refused",
            exposure = %spec.id,
            client = %self.client,
            endpoint = %spec.endpoint,
            dialed = %spec.target,
            reason = %fault.reason,
            "a client of an exposure did not reach its target: {}", fault.message
        );
    }

    /// The target was reached.
    pub(super) fn opened(self, connection: String) -> Visit {
        let spec = &self.exposure.spec;
        tracing::info!(
            audit = "tunnel.exposure_dialed",
            exposure = %spec.id,
            client = %self.client,
            endpoint = %spec.endpoint,
            dialed = %spec.target,
            connection,
            "a client of an exposure reached its target"
        );
        Visit { visitor: self, connection, began: Instant::now() }
    }
}

/// A connection that is open.
pub(super) struct Visit {
    visitor: Visitor,
    connection: String,
    began: Instant,
}

impl Visit {
    /// It ended, by a fault or well. `up` are bytes to the target.
    pub(super) fn ended(self, end: &LinkEnd) {
        let spec = &self.visitor.exposure.spec;
        tracing::info!(
            audit = "tunnel.exposure_ended",
            exposure = %spec.id,
            client = %self.visitor.client,
            endpoint = %spec.endpoint,
            dialed = %spec.target,
            connection = self.connection,
            up = end.up,
            down = end.down,
            seconds = self.began.elapsed().as_secs(),
            reason = end.fault.as_ref().map_or("OK", |fault| fault.reason.as_str()),
            "a connection of an exposure ended"
        );
    }
}

//! What a connection holds, and what becomes of its stream when it ends.

use std::sync::{Arc, OnceLock};

use wolfpack_tunnel::splice::{Direction, Link, LinkEnd, Park};

use crate::metrics::Metrics;
use crate::state::{Broker, Counted, Permit, Session};

/// The link of a connection of `session`: known to it, so that it ends with it,
/// and counted until its end, of which `on_end` hears. So many bytes went `early`.
pub(crate) fn link(
    broker: &Broker,
    metrics: &Arc<Metrics>,
    session: &Arc<Session>,
    (counted, permit): (Counted, Permit),
    early: usize,
    on_end: impl FnOnce(&LinkEnd) + Send + 'static,
) -> Link {
    let key = Arc::new(OnceLock::new());
    let (own_key, ends, metrics) = (key.clone(), session.clone(), metrics.clone());
    let throttle = session.throttle();
    let ahead = broker.budget.hold();
    if let Some(throttle) = &throttle {
        // What went ahead with the dial is paid for by what follows it.
        throttle.charge(Direction::Up, early);
    }
    let link = Link::throttled(broker.totals.clone(), throttle, move |end| {
        if let Some(key) = own_key.get() {
            ends.forget(*key, &end);
        }
        metrics.connection_ended(end.fault.as_ref());
        on_end(&end);
        drop((counted, permit, ahead));
    });
    link.count(Direction::Up, early);
    let _ = key.set(session.remember(&link.downgrade()));
    link
}

/// What takes the stream of a connection of `session` once its agent has parked it
/// again: as any that it parks, so not while the broker drains.
pub(crate) fn park(broker: &Arc<Broker>, session: &Arc<Session>) -> Park {
    let (broker, session) = (broker.clone(), session.clone());
    Box::new(move |stream| {
        if broker.not_draining().is_ok()
            && let Err(fault) = session.park(stream)
        {
            tracing::debug!(reason = %fault.reason, "a stream is not parked again");
        }
    })
}

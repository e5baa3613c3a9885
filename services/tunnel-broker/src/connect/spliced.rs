//! What a connection holds and does when it ends.

use std::sync::{Arc, OnceLock};

use wolfpack_tunnel::splice::{Link, LinkEnd};

use crate::metrics::Metrics;
use crate::state::{Broker, Counted, Permit, Session};

/// The link of a connection of `session`: known to it, so that it ends with it,
/// and counted until its end, of which `on_end` hears.
pub(crate) fn link(
    broker: &Broker,
    metrics: &Arc<Metrics>,
    session: &Arc<Session>,
    (counted, permit): (Counted, Permit),
    on_end: impl FnOnce(&LinkEnd) + Send + 'static,
) -> Link {
    let key = Arc::new(OnceLock::new());
    let (own_key, ends, metrics) = (key.clone(), session.clone(), metrics.clone());
    let link = Link::new(broker.totals.clone(), move |end| {
        if let Some(key) = own_key.get() {
            ends.forget(*key);
        }
        metrics.connection_ended(end.fault.as_ref());
        on_end(&end);
        drop((counted, permit));
    });
    let _ = key.set(session.remember(&link.downgrade()));
    link
}

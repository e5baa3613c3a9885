//! An agent's stream that outlives its connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wolfpack_runtime::clock;

use super::carry::{CarryStream, Slot};
use super::link::Link;
use crate::protocol::DataMode;
use crate::stream::Incoming;

/// A stream is used for so long: the agent proved who it is when it opened it, and
/// its certificate may end.
const MOST: Duration = Duration::from_secs(3600);

/// Takes a stream that is parked again; drops it where it has no use for it, which
/// ends the stream.
pub type Park = Box<dyn FnOnce(CarryStream) + Send>;

/// What it takes to park the stream of a connection again.
pub(crate) struct Again {
    slot: Arc<Mutex<Slot>>,
    since: Instant,
    park: Park,
}

impl Again {
    /// Of a stream that is open `since` then.
    pub(super) fn new(slot: Arc<Mutex<Slot>>, since: Instant, park: Park) -> Self {
        Self { slot, since, park }
    }

    /// Parks the stream, unless the connection ended otherwise in between; one that
    /// is too old is ended.
    pub(super) fn give(self, link: &Link, mut incoming: Incoming) {
        if let Some(carrier) = link.hand_back() {
            incoming.set_mode(DataMode::Raw);
            let stream = CarryStream::parked(self.slot, incoming, carrier.response, self.since);
            if clock::instant().saturating_duration_since(self.since) < MOST {
                (self.park)(stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};
    use std::task::Context;
    use std::time::{Duration, Instant};

    use futures::task::noop_waker_ref;
    use parking_lot::Mutex;
    use wolfpack_types::Reason;

    use crate::splice::link::{Carrier, OWED};
    use crate::splice::{Direction, Link, LinkEnd, Totals};
    use crate::stream::reset;

    fn finished() -> (Link, Arc<Mutex<Option<LinkEnd>>>) {
        let end = Arc::<Mutex<Option<LinkEnd>>>::default();
        let ended = end.clone();
        let link = Link::new(Arc::<Totals>::default(), move |end| *ended.lock() = Some(end));
        link.carried_by(Carrier { source: Weak::new(), response: None, of_socket: true });
        link.count(Direction::Up, 7);
        link.finished(Direction::Up);
        link.finished(Direction::Down);
        (link, end)
    }

    #[test]
    fn a_link_that_gave_its_stream_back_is_over_whoever_holds_it_and_ends_nothing() {
        let (link, end) = finished();
        assert!(link.hand_back().is_some());
        // Its places are free, though the agent reads nothing of what is left.
        let over = end.lock().take().expect("over at once");
        assert_eq!((over.up, over.fault.map(|fault| fault.reason)), (7, None));
        link.abort(reset("too late"));
        let cx = Context::from_waker(noop_waker_ref());
        assert!(link.watch(Direction::Up, &cx).is_none() && link.hand_back().is_none());
        drop(link);
        assert!(end.lock().is_none(), "and not twice");
    }

    #[test]
    fn a_link_that_was_aborted_gives_nothing_back() {
        let (link, end) = finished();
        link.abort(reset("in time"));
        assert!(link.hand_back().is_none());
        drop(link);
        let fault = end.lock().take().unwrap().fault;
        assert_eq!(fault.map(|fault| fault.reason), Some(Reason::ConnectionReset));
    }

    #[test]
    fn a_socket_that_finished_and_has_all_is_not_waited_for_without_end() {
        let (link, end) = finished();
        let (weak, start) = (link.downgrade(), Instant::now());
        weak.check(start);
        weak.check(start + OWED - Duration::from_secs(1));
        assert!(link.hand_back().is_some(), "in time");
        assert!(end.lock().take().unwrap().fault.is_none());

        // The fin that goes to the agent may have no room.
        let end = Arc::<Mutex<Option<LinkEnd>>>::default();
        let ended = end.clone();
        let link = Link::new(Arc::<Totals>::default(), move |end| *ended.lock() = Some(end));
        link.carried_by(Carrier { source: Weak::new(), response: None, of_socket: true });
        link.ended(Direction::Up);
        link.finished(Direction::Down);
        let weak = link.downgrade();
        weak.check(start);
        weak.check(start + OWED);
        assert!(link.hand_back().is_none());
        drop(link);
        let fault = end.lock().take().unwrap().fault;
        assert_eq!(fault.map(|fault| fault.reason), Some(Reason::ConnectionReset));
    }

    #[test]
    fn the_end_of_a_socket_is_not_believed_while_it_is_doubted() {
        let (link, _) = finished();
        assert!(!link.is_doubted());
        link.doubt(true);
        assert!(link.is_doubted());
        link.doubt(false);
        assert!(!link.is_doubted());
    }
}

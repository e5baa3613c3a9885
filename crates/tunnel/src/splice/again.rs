//! An agent's stream that outlives its connection.

use std::sync::Arc;

use parking_lot::Mutex;

use super::carry::{CarryStream, Slot};
use super::link::Link;
use crate::protocol::DataMode;
use crate::stream::Incoming;

/// Takes a stream that is parked again; drops it where it has no use for it, which
/// ends the stream.
pub type Park = Box<dyn FnOnce(CarryStream) + Send>;

/// What it takes to park the stream of a connection again.
pub(crate) struct Again {
    slot: Arc<Mutex<Slot>>,
    park: Park,
}

impl Again {
    pub(super) fn new(slot: Arc<Mutex<Slot>>, park: Park) -> Self {
        Self { slot, park }
    }

    /// Parks the stream, unless the connection ended otherwise in between.
    pub(super) fn give(self, link: &Link, mut incoming: Incoming) {
        if let Some(carrier) = link.hand_back() {
            incoming.set_mode(DataMode::Raw);
            (self.park)(CarryStream::parked(self.slot, incoming, carrier.response));
        }
    }
}

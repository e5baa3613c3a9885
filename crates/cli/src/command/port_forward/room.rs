//! Places for connections: how many there are at once, and which connection to
//! the gateway each goes by.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wolfpack_tunnel::Dialer;

/// Connections on one connection to the gateway, which takes 256 calls on each:
/// those that end and the other calls of this command need some.
pub(crate) const ON_EACH: usize = 200;
/// Places that a port has for itself, so that another one that is full cannot
/// take them all; less where there are few places.
const OWN: usize = 8;

/// All places of a command; cheap to clone.
#[derive(Clone)]
pub(super) struct Room(Arc<Inner>);

struct Inner {
    most: usize,
    /// Of each port.
    own: usize,
    shared: Arc<Semaphore>,
    dialers: Vec<Dialer>,
    /// Connections that are open, by dialer.
    open: watch::Sender<Vec<usize>>,
}

/// The places that one port may take.
pub(super) struct Port {
    room: Room,
    own: Arc<Semaphore>,
}

/// One place; it is free again when it is dropped.
pub(super) struct Place {
    // Before the permit: whoever gets that finds a dialer with room.
    lane: Lane,
    _permit: OwnedSemaphorePermit,
}

struct Lane {
    room: Room,
    at: usize,
}

/// How many connections to the gateway so many places need.
pub(super) fn dialers_for(most: usize) -> usize {
    most.div_ceil(ON_EACH)
}

impl Room {
    /// Places for `most` connections over `ports`; `dialers` are as many as
    /// [`dialers_for`] says, each with a connection of its own.
    pub(super) fn new(most: usize, ports: usize, dialers: Vec<Dialer>) -> Self {
        // At least half of them are whoever's comes first.
        let own = OWN.min(most / (2 * ports.max(1)));
        let shared = Arc::new(Semaphore::new(most - own * ports));
        let open = watch::Sender::new(vec![0; dialers.len()]);
        Self(Arc::new(Inner { most, own, shared, dialers, open }))
    }

    /// The places of one of the ports.
    pub(super) fn port(&self) -> Port {
        Port { room: self.clone(), own: Arc::new(Semaphore::new(self.0.own)) }
    }

    /// How many connections there may be.
    pub(super) fn most(&self) -> usize {
        self.0.most
    }

    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.0.open.borrow().iter().sum()
    }

    /// Waits until there is none.
    pub(super) async fn empty(&self) {
        let mut open = self.0.open.subscribe();
        // Never an error: the sender is ours.
        let _ = open.wait_for(|open| open.iter().all(|count| *count == 0)).await;
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        let mut at = 0;
        self.0.open.send_modify(|open| {
            // The first ones first: another connection is made when it is needed.
            at = open.iter().position(|count| *count < ON_EACH).unwrap_or_default();
            if let Some(count) = open.get_mut(at) {
                *count += 1;
            }
        });
        Place { lane: Lane { room: self.clone(), at }, _permit: permit }
    }
}

impl Port {
    /// The room it is of.
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// A place, when there is one.
    pub(super) fn take(&self) -> Option<Place> {
        let own = self.own.clone().try_acquire_owned();
        let permit = own.or_else(|_| self.room.0.shared.clone().try_acquire_owned());
        permit.ok().map(|permit| self.room.place(permit))
    }

    /// A place, as soon as there is one: whoever waits longer comes first.
    /// `None` never comes, as nobody closes the room.
    pub(super) async fn wait(&self) -> Option<Place> {
        let permit = tokio::select! {
            permit = self.own.clone().acquire_owned() => permit,
            permit = self.room.0.shared.clone().acquire_owned() => permit,
        };
        permit.ok().map(|permit| self.room.place(permit))
    }
}

impl Place {
    /// What the connection of this place is dialed by.
    pub(super) fn dialer(&self) -> Option<&Dialer> {
        self.lane.room.0.dialers.get(self.lane.at)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.room.0.open.send_modify(|open| {
            if let Some(count) = open.get_mut(self.at) {
                *count -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_rpc::RpcChannel;

    fn room(most: usize, ports: usize) -> Room {
        let channel = || RpcChannel::to_gateway("http://127.0.0.1:9", None, None).unwrap();
        let dialers = (0..dialers_for(most)).map(|_| Dialer::new(channel())).collect();
        Room::new(most, ports, dialers)
    }

    #[tokio::test]
    async fn a_port_that_is_full_leaves_others_their_own() {
        let room = room(40, 2);
        let (one, other) = (room.port(), room.port());
        let mut taken: Vec<Place> = std::iter::from_fn(|| one.take()).collect();
        assert_eq!((taken.len(), room.open()), (32, 32));
        let others: Vec<Place> = std::iter::from_fn(|| other.take()).collect();
        assert_eq!((others.len(), room.open()), (8, 40), "its own");
        assert!(one.take().is_none() && other.take().is_none());
        let freed = taken.pop();
        let mut waiting = std::pin::pin!(one.wait());
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "there is none");
        drop(freed);
        taken.extend(waiting.await);
        assert_eq!(taken.len(), 32);
        drop(others);
        assert!(one.take().is_none(), "they are the other's again");
        drop(taken);
        room.empty().await;
    }

    #[tokio::test]
    async fn however_few_there_are_all_are_given_out() {
        for (most, ports) in [(1, 1), (1, 5), (4, 2), (7, 3), (800, 1), (800, 300)] {
            let room = room(most, ports);
            let all: Vec<Port> = (0..ports).map(|_| room.port()).collect();
            let places: Vec<Place> =
                all.iter().flat_map(|port| std::iter::from_fn(|| port.take())).collect();
            assert_eq!(places.len(), most, "{most} over {ports}");
        }
    }

    #[tokio::test]
    async fn no_connection_to_the_gateway_gets_more_than_it_takes() {
        let room = room(500, 1);
        let port = room.port();
        let mut places: Vec<Place> = std::iter::from_fn(|| port.take()).collect();
        assert_eq!(*room.0.open.borrow(), [200, 200, 100]);
        assert!(places.iter().all(|place| place.dialer().is_some()));
        drop(places.drain(..50));
        let again: Vec<Place> = std::iter::from_fn(|| port.take()).collect();
        assert_eq!(again.len(), 50);
        assert_eq!(*room.0.open.borrow(), [200, 200, 100], "what is free is used first");
    }
}

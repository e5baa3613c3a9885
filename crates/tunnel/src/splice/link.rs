//! What the two directions of a connection know of each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wolfpack_rpc::StreamCut;
use wolfpack_types::{Fault, Reason};

use super::relay::StreamSource;
use super::throttle::Throttle;
use crate::stream::reset;

/// How long the agent may take what was sent, once it has finished itself and
/// the caller has left.
pub(crate) const LINGER: Duration = Duration::from_secs(60);

/// The same where the caller is a socket that has finished and has all: whether it
/// left cannot be known. What is left is a window at most; nobody sees it shrink.
pub(crate) const OWED: Duration = Duration::from_secs(600);

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the caller to the agent.
    Up,
    /// From the agent to the caller.
    Down,
}

impl Direction {
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How far one direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Way {
    /// Its sender has said all.
    pub(crate) ended: bool,
    /// Its `fin` was passed on.
    pub(crate) finished: bool,
    /// Its body has ended, or its receiver went away.
    pub(crate) over: bool,
}

/// How a connection ended, given once to whoever made it.
#[derive(Debug, Clone)]
pub struct LinkEnd {
    /// Bytes of frames passed from the caller to the agent.
    pub up: u64,
    /// Bytes of frames passed from the agent to the caller.
    pub down: u64,
    /// What ended it; `None` when both sides finished.
    pub fault: Option<Fault>,
}

/// The agent's stream: both its halves must go for HTTP/2 to reset it.
pub(crate) struct Carrier {
    /// What the agent sends, held by the body that goes down.
    pub(crate) source: Weak<StreamSource>,
    /// The response that the agent reads.
    pub(crate) response: Option<StreamCut>,
    /// The caller is a socket of ours, which nobody hears of when it has all.
    pub(crate) of_socket: bool,
}

impl Carrier {
    fn cut(self) {
        let source = self.source.upgrade().and_then(|source| source.lock().take());
        drop(source);
        if let Some(response) = self.response {
            response.cut();
        }
    }
}

type OnEnd = Box<dyn FnOnce(LinkEnd) + Send>;

/// Bytes over all connections of a broker, for its metrics.
#[derive(Debug, Default)]
pub struct Totals {
    bytes: [AtomicU64; 2],
    throttled: [AtomicU64; 2],
}

impl Totals {
    /// Bytes of frames passed on since the start.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction.index()].load(Ordering::Relaxed)
    }

    /// How often a connection had to wait for its tunnel's rate.
    #[must_use]
    pub fn throttled(&self, direction: Direction) -> u64 {
        self.throttled[direction.index()].load(Ordering::Relaxed)
    }
}

/// One spliced connection. Clones are the same connection; when the last one is
/// dropped, both directions are over and the callback has run.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    bytes: [AtomicU64; 2],
    totals: Arc<Totals>,
    throttle: Option<Arc<Throttle>>,
    on_end: Mutex<Option<OnEnd>>,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    ways: [Way; 2],
    wakers: [Option<Waker>; 2],
    carrier: Option<Carrier>,
    /// Since when the caller is gone, or may be, and the agent is not done.
    lingers: Option<Instant>,
    /// All ended well, and the agent's stream is no longer the connection's.
    handed_back: bool,
    /// The end of the caller's socket may be a break.
    doubted: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("up", &self.bytes(Direction::Up)).finish_non_exhaustive()
    }
}

impl Link {
    /// A connection with both directions open.
    #[must_use]
    pub fn new(totals: Arc<Totals>, on_end: impl FnOnce(LinkEnd) + Send + 'static) -> Self {
        Self::throttled(totals, None, on_end)
    }

    /// As [`Link::new`], at a rate that it shares with others.
    #[must_use]
    pub fn throttled(
        totals: Arc<Totals>,
        throttle: Option<Arc<Throttle>>,
        on_end: impl FnOnce(LinkEnd) + Send + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                bytes: [AtomicU64::new(0), AtomicU64::new(0)],
                totals,
                throttle,
                on_end: Mutex::new(Some(Box::new(on_end))),
            }),
        }
    }

    /// A handle that does not keep the connection.
    #[must_use]
    pub fn downgrade(&self) -> WeakLink {
        WeakLink(Arc::downgrade(&self.shared))
    }

    /// Ends the connection: the caller gets `fault` once it has read what came
    /// before, the agent a reset at once, whether it reads or not. The first
    /// fault stays; one that comes after all has ended well is none.
    pub fn abort(&self, fault: Fault) {
        let mut state = self.shared.state.lock();
        if state.handed_back {
            return;
        }
        state.fault.get_or_insert(fault);
        let wakers = std::mem::take(&mut state.wakers);
        let carrier = state.carrier.take();
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        if let Some(carrier) = carrier {
            carrier.cut();
        }
    }

    /// Says by which stream the agent is reached.
    pub(crate) fn carried_by(&self, carrier: Carrier) {
        let mut state = self.shared.state.lock();
        if state.fault.is_none() {
            state.carrier = Some(carrier);
            return;
        }
        drop(state);
        // It ended in between.
        carrier.cut();
    }

    /// All has ended well, and the agent has parked its stream again: it is the
    /// connection's no more, and the connection is over, whoever still holds a part
    /// of it: what waits to be sent to the agent is the stream's. `None` when it was
    /// aborted in between, or its caller has left.
    pub(crate) fn hand_back(&self) -> Option<Carrier> {
        let mut state = self.shared.state.lock();
        if state.fault.is_some() {
            return None;
        }
        let carrier = state.carrier.take()?;
        state.handed_back = true;
        drop(state);
        let on_end = self.shared.on_end.lock().take();
        if let Some(on_end) = on_end {
            let (up, down) = (self.bytes(Direction::Up), self.bytes(Direction::Down));
            on_end(LinkEnd { up, down, fault: None });
        }
        Some(carrier)
    }

    /// The caller's socket has an error that is being looked at: until then its end
    /// is not believed, as the kernel tells of an error once and of an end after it.
    pub(crate) fn doubt(&self, doubted: bool) {
        let mut state = self.shared.state.lock();
        state.doubted = doubted;
        let waker = if doubted { None } else { state.wakers[Direction::Up.index()].take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the end of the caller's socket may be a break.
    pub(crate) fn is_doubted(&self) -> bool {
        self.shared.state.lock().doubted
    }

    /// Whether the agent's stream is another connection's, or nobody's.
    pub(crate) fn is_handed_back(&self) -> bool {
        self.shared.state.lock().handed_back
    }

    /// The caller has left, or has all. Unless the agent had finished, and what
    /// the caller sent may only be on its way, that is the end for the agent, too.
    pub(crate) fn caller_left(&self) {
        self.over(Direction::Down);
        let mut state = self.shared.state.lock();
        let done = state.fault.is_none() && state.ways[Direction::Down.index()].finished;
        let carrier = if done { None } else { state.carrier.take() };
        drop(state);
        if let Some(carrier) = carrier {
            carrier.cut();
        }
    }

    /// Looks whether the agent takes too long for what was sent before the
    /// caller left, and ends that. A socket that has finished, and has all, may be
    /// of one that left: it would not be told.
    fn check(&self, now: Instant) {
        let mut state = self.shared.state.lock();
        let of_socket = state.carrier.as_ref().is_some_and(|carrier| carrier.of_socket);
        let [up, down] = state.ways;
        let time = match (down.over, of_socket && up.ended && down.finished) {
            (true, _) => LINGER,
            (false, true) => OWED,
            (false, false) => return,
        };
        let since = *state.lingers.get_or_insert(now);
        if now.saturating_duration_since(since) < time {
            return;
        }
        drop(state);
        self.abort(reset("the target did not take what was sent in time"));
    }

    /// Bytes passed on so far.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes[direction.index()].load(Ordering::Relaxed)
    }

    /// Counts bytes that passed in a direction.
    pub fn count(&self, direction: Direction, bytes: usize) {
        self.shared.bytes[direction.index()].fetch_add(bytes as u64, Ordering::Relaxed);
        self.shared.totals.bytes[direction.index()].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How long to wait before more passes than `bytes`, which just did.
    pub(crate) fn pace(&self, direction: Direction, bytes: usize) -> Option<Duration> {
        let wait = self.shared.throttle.as_ref()?.charge(direction, bytes)?;
        self.shared.totals.throttled[direction.index()].fetch_add(1, Ordering::Relaxed);
        Some(wait)
    }

    /// The fault that ended it, if one did; remembers whom to wake.
    pub(crate) fn watch(&self, direction: Direction, cx: &Context<'_>) -> Option<Fault> {
        let mut state = self.shared.state.lock();
        if state.fault.is_some() {
            return state.fault.clone();
        }
        match &mut state.wakers[direction.index()] {
            Some(waker) => waker.clone_from(cx.waker()),
            slot => *slot = Some(cx.waker().clone()),
        }
        None
    }

    /// Resolves to the fault that ends the connection, for whoever carries
    /// `direction` outside of a body.
    pub(crate) async fn aborted(&self, direction: Direction) -> Fault {
        std::future::poll_fn(|cx| match self.watch(direction, cx) {
            Some(fault) => Poll::Ready(fault),
            None => Poll::Pending,
        })
        .await
    }

    pub(crate) fn way(&self, direction: Direction) -> Way {
        self.shared.state.lock().ways[direction.index()]
    }

    /// The sender of a direction has said all; its `fin` may wait for room.
    pub(crate) fn ended(&self, direction: Direction) {
        self.shared.state.lock().ways[direction.index()].ended = true;
    }

    /// The `fin` of a direction was passed on.
    pub(crate) fn finished(&self, direction: Direction) {
        self.move_on(direction, |way| (way.ended, way.finished) = (true, true));
    }

    /// The body of a direction has ended, or its receiver went away.
    pub(crate) fn over(&self, direction: Direction) {
        self.move_on(direction, |way| way.over = true);
    }

    /// Moves a direction on and tells the other one.
    fn move_on(&self, direction: Direction, change: impl FnOnce(&mut Way)) {
        let mut state = self.shared.state.lock();
        change(&mut state.ways[direction.index()]);
        let waker = state.wakers[direction.other().index()].take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A connection that may be over.
#[derive(Clone)]
pub struct WeakLink(Weak<Shared>);

impl std::fmt::Debug for WeakLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeakLink")
    }
}

impl WeakLink {
    /// The connection, if it is not over. Whoever drops the last one of it runs
    /// its callback.
    #[must_use]
    pub fn upgrade(&self) -> Option<Link> {
        self.0.upgrade().map(|shared| Link { shared })
    }

    /// As [`Link::abort`], if the connection is not over.
    pub fn abort(&self, fault: Fault) {
        if let Some(link) = self.upgrade() {
            link.abort(fault);
        }
    }

    /// To be called now and then: ends a connection whose caller has left a
    /// minute ago and whose agent is still not done with what was sent.
    pub fn check(&self, now: Instant) {
        if let Some(shared) = self.0.upgrade() {
            Link { shared }.check(now);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.get_mut().take() {
            let state = self.state.get_mut();
            let fault = state.fault.take().or_else(|| {
                // Neither a fault nor two ends: a receiver left in between.
                match state.ways.map(|way| way.finished) {
                    [true, true] => None,
                    [_, false] => Some(Fault::new(Reason::Cancelled, "the caller went away")),
                    [false, true] => Some(reset("the agent left before it took all that was sent")),
                }
            });
            on_end(LinkEnd { up: *self.bytes[0].get_mut(), down: *self.bytes[1].get_mut(), fault });
        }
    }
}

//! A Carry stream at the broker: parked, then opened, then relayed, and where
//! that ended well parked again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::Status;
use wolfpack_proto::tunnel::v1::{
    CarryRequest, CarryResponse, Open, Park, carry_request, carry_response,
};
use wolfpack_rpc::{ByteBudget, StreamCut};
use wolfpack_runtime::clock;
use wolfpack_types::{Fault, Reason};

use super::again::Again;
use super::link::{Carrier, Direction, Link};
use super::relay::RelayBody;
use super::socket;
use crate::grpc::{fault_trailers, ok_trailers};
use crate::life::LifeMark;
use crate::protocol::{DataMode, encode};
use crate::reasons;
use crate::stream::{Incoming, IncomingError, Item, Late, SocketReader, late_message, reset};

/// The work of a parked stream.
enum Work {
    Relay(RelayBody),
    End(Option<Fault>),
}

#[derive(Default)]
pub(super) struct Slot {
    /// Frames to send before anything else.
    early: VecDeque<Bytes>,
    /// The first of them was taken, to be sent.
    said: bool,
    work: Option<Work>,
    /// What the agent sends, while there is no work. It must be nothing.
    resting: Option<Incoming>,
    waker: Option<Waker>,
    gone: bool,
}

impl Slot {
    /// Gives the body its work; one that is gone lets it go at once, so that whoever
    /// waits for it hears of it.
    fn set(slot: &Mutex<Self>, work: Work) {
        let mut locked = slot.lock();
        let (left, waker) = if locked.gone {
            (Some(work), None)
        } else {
            (locked.work.replace(work), locked.waker.take())
        };
        drop(locked);
        drop(left);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the stream, and lets go of what its agent may send.
    fn end(slot: &Mutex<Self>, fault: Option<Fault>) {
        let resting = slot.lock().resting.take();
        drop(resting);
        Self::set(slot, Work::End(fault));
    }

    fn send(slot: &Mutex<Self>, frame: Bytes) {
        let mut locked = slot.lock();
        locked.early.push_back(frame);
        let waker = locked.waker.take();
        drop(locked);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The body that an agent's Carry call is answered with.
pub struct CarryBody {
    slot: Arc<Mutex<Slot>>,
    relay: Option<RelayBody>,
    done: bool,
}

impl Body for CarryBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(relay) = &mut this.relay {
                let frame = ready!(Pin::new(&mut *relay).poll_frame(cx));
                if frame.is_some() || !relay.is_handed_back() {
                    return Poll::Ready(frame);
                }
                this.relay = None;
            }
            if this.done {
                return Poll::Ready(None);
            }
            let mut slot = this.slot.lock();
            if let Some(frame) = slot.early.pop_front() {
                slot.said = true;
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            let Some(work) = slot.work.take() else {
                let said = slot.resting.as_mut().map(|incoming| incoming.poll_next(cx));
                let Some(Poll::Ready(said)) = said else {
                    slot.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                let resting = slot.resting.take();
                drop(slot);
                drop(resting);
                this.done = true;
                return Poll::Ready(Some(Ok(Frame::trailers(spoke_too_early(&said)))));
            };
            drop(slot);
            match work {
                Work::Relay(relay) => this.relay = Some(relay),
                Work::End(fault) => {
                    this.done = true;
                    let trailers = fault.map_or_else(ok_trailers, fault_trailers);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.relay.as_ref().is_some_and(Body::is_end_stream)
    }
}

impl Drop for CarryBody {
    fn drop(&mut self) {
        let mut slot = self.slot.lock();
        slot.gone = true;
        let (work, resting) = (slot.work.take(), slot.resting.take());
        drop(slot);
        // Not under the lock: the end of a relay is told to the other one.
        drop((work, resting));
    }
}

/// How a stream ends whose agent did not keep still before it had a connection.
fn spoke_too_early(said: &Result<Item, IncomingError>) -> HeaderMap {
    match said {
        // It left, or is gone.
        Ok(Item::End(_)) | Err(IncomingError::Broken(_)) => ok_trailers(),
        Ok(Item::Data(_) | Item::Message(_)) | Err(IncomingError::Frames(_)) => {
            fault_trailers(Fault::new(
                Reason::RequestInvalid,
                "nothing may be sent on a parked stream before it is opened; open another one",
            ))
        }
    }
}

/// What an agent said to an `Open`.
#[derive(Debug)]
pub enum CarryAnswer {
    /// It reached the target.
    Opened,
    /// It did not, and why.
    Refused(Fault),
    /// The stream died before any answer: try another one.
    Died(Fault),
}

/// What became of an [`Open`], also once its stream is gone.
#[derive(Clone)]
pub struct Opening(Arc<Mutex<Slot>>);

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("said", &self.0.lock().said).finish()
    }
}

impl Opening {
    /// Takes it back, with what came with it, where it has not left for the agent. False
    /// where it has: without an answer nobody can say whether it arrived.
    #[must_use]
    pub fn take_back(&self) -> bool {
        let mut slot = self.0.lock();
        if !slot.said {
            slot.early.clear();
        }
        !slot.said
    }
}

/// A Carry stream that has no connection yet. Dropping it ends the stream: a
/// parked one is retired, an opened one is told that the caller went away.
pub struct CarryStream {
    slot: Option<Arc<Mutex<Slot>>>,
    incoming: Option<Incoming>,
    cut: Option<StreamCut>,
    opened: bool,
    /// When the agent opened it.
    since: Instant,
}

impl std::fmt::Debug for CarryStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CarryStream").field("opened", &self.opened).finish_non_exhaustive()
    }
}

impl CarryStream {
    /// Reads the first message of a Carry call, which must be `Park`; to be
    /// called by its handler, which bounds the time. Gives the stream, the body to answer with, and
    /// what the agent asked for.
    ///
    /// # Errors
    /// `FIRST_MESSAGE_MISSING` for anything else.
    pub async fn accept(body: tonic::body::Body) -> Result<(Self, CarryBody, Park), Fault> {
        let missing = || {
            Fault::new(
                Reason::FirstMessageMissing,
                "the first message of a carry stream must be park",
            )
        };
        let mut incoming = Incoming::new(body, DataMode::Raw);
        let Ok(Item::Message(bytes)) = incoming.next().await else {
            return Err(missing());
        };
        let Some(carry_request::Frame::Park(park)) =
            CarryRequest::decode(bytes).ok().and_then(|message| message.frame)
        else {
            return Err(missing());
        };
        let slot = Arc::new(Mutex::new(Slot::default()));
        let body = CarryBody { slot: slot.clone(), relay: None, done: false };
        let (incoming, cut) = (Some(incoming), StreamCut::current());
        let since = clock::instant();
        Ok((Self { slot: Some(slot), incoming, cut, opened: false, since }, body, park))
    }

    /// One that its agent has parked again.
    pub(super) fn parked(
        slot: Arc<Mutex<Slot>>,
        incoming: Incoming,
        cut: Option<StreamCut>,
        since: Instant,
    ) -> Self {
        Self { slot: Some(slot), incoming: Some(incoming), cut, opened: false, since }
    }

    /// Rests until it is opened. The bytes of an agent that sends meanwhile would be read by
    /// nobody and are in nobody's budget: they end the stream, as its agent's leaving does.
    pub fn rest(&mut self) {
        let (Some(slot), Some(incoming)) = (&self.slot, self.incoming.take()) else { return };
        let mut locked = slot.lock();
        if locked.gone {
            return;
        }
        locked.resting = Some(incoming);
        let waker = locked.waker.take();
        drop(locked);
        // Whoever sends the response listens from now on.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Counts later bytes of the stream as life of its agent.
    pub fn set_life(&mut self, life: LifeMark) {
        if let Some(incoming) = &mut self.incoming {
            incoming.set_life(life);
        }
    }

    /// Whether the agent took the stream away.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.slot.as_ref().is_none_or(|slot| slot.lock().gone)
    }

    /// Gives the stream its work. Dropping the stream from now on tells the agent
    /// that the caller went away. `None` for a stream that was used before, or whose
    /// agent took it away.
    pub fn open(&mut self, open: Open) -> Option<Opening> {
        let frame = CarryResponse { frame: Some(carry_response::Frame::Open(open)) };
        self.opened = true;
        let slot = self.slot.as_ref()?;
        let mut locked = slot.lock();
        if self.incoming.is_none() {
            self.incoming = Some(locked.resting.take()?);
        }
        locked.said = false;
        drop(locked);
        Slot::send(slot, encode::message(&frame));
        Some(Opening(slot.clone()))
    }

    /// Sends bytes of the connection after [`CarryStream::open`], before the
    /// agent has answered: they reach the target with the connection. The caller
    /// bounds how many.
    pub fn send_early(&self, bytes: &[u8]) {
        if let Some(slot) = &self.slot {
            Slot::send(slot, encode::data(bytes));
        }
    }

    /// Waits for the agent's answer to [`CarryStream::open`]; the caller bounds
    /// the time. Cancelling it loses nothing.
    pub async fn answer(&mut self) -> CarryAnswer {
        let Some(incoming) = &mut self.incoming else {
            return CarryAnswer::Died(reset("the stream was used before"));
        };
        match incoming.next().await {
            Ok(Item::Message(bytes)) => match late_message(bytes) {
                Late::Opened => CarryAnswer::Opened,
                Late::Reset(frame) => CarryAnswer::Refused(reasons::from_reset(&frame)),
                Late::Fin | Late::Data(_) | Late::Park | Late::Other => {
                    CarryAnswer::Refused(reset("the agent answered with another frame than opened"))
                }
            },
            Ok(Item::Data(_)) => {
                CarryAnswer::Refused(reset("the agent sent data before it said opened"))
            }
            Ok(Item::End(_)) => CarryAnswer::Died(reset("the agent ended the stream")),
            Err(error) => CarryAnswer::Died(reset("the agent's stream broke").caused_by(error)),
        }
    }

    /// Splices the stream with a caller: the agent is given what `caller`
    /// sends, and the body that is returned gives the caller what the agent
    /// sends, after `first`. Where `park` is given, which [`Open`] must have told
    /// the agent, it gets the stream if the agent parks it again.
    #[must_use]
    pub fn splice(
        mut self,
        link: Link,
        caller: CallerStream,
        first: Bytes,
        park: Option<super::Park>,
    ) -> Option<RelayBody> {
        let (slot, incoming) = (self.slot.take()?, self.incoming.take()?);
        let again = park.map(|park| Again::new(slot.clone(), self.since, park));
        let down = RelayBody::new(link.clone(), Direction::Down, incoming, Some(first));
        let down = down.parks_again(again);
        link.carried_by(Carrier {
            source: down.source(),
            response: self.cut.take(),
            of_socket: false,
        });
        Slot::set(&slot, Work::Relay(RelayBody::new(link, Direction::Up, caller.incoming, None)));
        Some(down)
    }

    /// Splices the stream with a socket of the broker's own. The agent is given
    /// what the socket gives from now on; the future writes to it what the agent
    /// sends, and ends with the connection: by an abort of the link, too. A
    /// connection that breaks is a reset of the socket. Dropping the future takes
    /// the connection back. `park` as in [`CarryStream::splice`].
    /// Chunks of the socket are as large as `budget` lets them be.
    pub async fn splice_socket(
        mut self,
        link: Link,
        (socket, budget): (TcpStream, ByteBudget),
        park: Option<super::Park>,
    ) {
        let (Some(slot), Some(incoming)) = (self.slot.take(), self.incoming.take()) else { return };
        let again = park.map(|park| Again::new(slot.clone(), self.since, park));
        let (reader, writer) = socket.into_split();
        link.carried_by(Carrier {
            source: Weak::new(),
            response: self.cut.take(),
            of_socket: true,
        });
        let up = RelayBody::of_socket(link.clone(), SocketReader::new(Box::new(reader), budget));
        Slot::set(&slot, Work::Relay(up));
        socket::write(link, writer, incoming, again).await;
    }

    /// Ends the stream with a fault instead of a plain retirement.
    pub fn end(mut self, fault: Fault) {
        if let Some(slot) = self.slot.take() {
            Slot::end(&slot, Some(fault));
        }
    }
}

impl Drop for CarryStream {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let fault = self.opened.then(|| Fault::new(Reason::Cancelled, "the caller went away"));
            Slot::end(&slot, fault);
        }
    }
}

/// The request of a Dial call after its first message.
#[derive(Debug)]
pub struct CallerStream {
    incoming: Incoming,
}

impl CallerStream {
    /// Reads the first message of a Dial call, which must be `open`; the
    /// caller bounds the time.
    ///
    /// # Errors
    /// `FIRST_MESSAGE_MISSING` for anything else.
    pub async fn accept(
        body: tonic::body::Body,
    ) -> Result<(Self, wolfpack_proto::tunnel::v1::DialRequest), Fault> {
        let missing =
            || Fault::new(Reason::FirstMessageMissing, "the first message of a dial must be open");
        let mut incoming = Incoming::new(body, DataMode::Raw);
        let Ok(Item::Message(bytes)) = incoming.next().await else {
            return Err(missing());
        };
        let message = wolfpack_proto::tunnel::v1::DialRequest::decode(bytes)
            .map_err(|error| missing().caused_by(error))?;
        Ok((Self { incoming }, message))
    }
}

#[cfg(test)]
#[path = "carry_tests.rs"]
mod tests;

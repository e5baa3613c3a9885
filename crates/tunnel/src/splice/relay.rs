//! One direction of a connection, as the body that its receiver reads.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use wolfpack_types::{Fault, Reason};

use super::again::Again;
use super::link::{Direction, Link};
use crate::grpc::{cancelled, fault_trailers, ok_trailers};
use crate::protocol::encode;
use crate::reasons;
use crate::stream::{
    Incoming, IncomingError, Item, LARGE, Late, SocketReader, late_message, reset,
};

/// A stream that a body reads; the [`Link`] may take it away when all is over.
pub(crate) type StreamSource = Mutex<Option<Incoming>>;

/// Where the frames of a direction come from.
enum Source {
    /// A stream, which gives frames as they came.
    Stream(Arc<StreamSource>),
    /// A socket of the broker's own, whose bytes are made into frames.
    Socket(SocketReader),
    /// A socket that was read to its end: it is not kept open for what waits.
    Read,
}

/// Passes frames of one request, or of a socket, on as the response to another. It ends with
/// OK only when both directions have finished and, for the caller, the agent
/// has ended its request: by that it says that the target took all. A reset, a
/// lost stream or an abort of the [`Link`] ends it with that fault, one that
/// comes after the `fin` too: the caller is told why, after all that came
/// before; the agent's stream is reset, as what it does not read would stand
/// before any word.
///
/// Where the agent parks its stream again, in place of the end of its request, it
/// is given back, and the direction to the agent ends without a word: the stream
/// goes on.
pub struct RelayBody {
    link: Link,
    direction: Direction,
    source: Source,
    /// For the agent's direction, where the stream may be parked again.
    again: Option<Again>,
    first: Option<Bytes>,
    state: State,
    pause: bool,
    /// Over when more may pass, where the tunnel has a rate.
    wait: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    /// `fin` was given to the agent, which may not have room for it.
    Fin,
    /// `fin` was passed on; the other direction goes on.
    Tail,
    /// As `Tail`, and the sender has ended its stream.
    Ended,
    /// As `Tail`, and the agent has parked its stream again.
    Parked,
    Done,
}

enum Step {
    Frame(Bytes),
    Fin,
    Fail(Fault),
}

impl RelayBody {
    pub(crate) fn new(
        link: Link,
        direction: Direction,
        source: Incoming,
        first: Option<Bytes>,
    ) -> Self {
        Self {
            link,
            direction,
            source: Source::Stream(Arc::new(Mutex::new(Some(source)))),
            again: None,
            first,
            state: State::Copying,
            pause: false,
            wait: None,
        }
    }

    /// The caller's direction, when the caller is a socket.
    pub(crate) fn of_socket(link: Link, socket: SocketReader) -> Self {
        Self {
            link,
            direction: Direction::Up,
            source: Source::Socket(socket),
            again: None,
            first: None,
            state: State::Copying,
            pause: false,
            wait: None,
        }
    }

    /// The agent's stream may be parked again when all has ended well.
    pub(crate) fn parks_again(mut self, again: Option<Again>) -> Self {
        self.again = again;
        self
    }

    /// Whether its stream goes on without it.
    pub(crate) fn is_handed_back(&self) -> bool {
        self.state == State::Done && self.direction == Direction::Up && self.link.is_handed_back()
    }

    /// What it reads, for whoever may have to take it away.
    pub(crate) fn source(&self) -> Weak<StreamSource> {
        match &self.source {
            Source::Stream(source) => Arc::downgrade(source),
            Source::Socket(_) | Source::Read => Weak::new(),
        }
    }

    /// The next thing its sender says.
    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Item, IncomingError>> {
        let Source::Stream(source) = &self.source else { return Poll::Pending };
        match source.lock().as_mut() {
            Some(source) => source.poll_next(cx),
            // Taken away with a fault, which is looked for first.
            None => Poll::Pending,
        }
    }

    /// Reads the source once.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Source::Socket(socket) = &mut self.source {
            return Poll::Ready(match ready!(socket.poll_frame(cx)) {
                Ok(Some(frame)) => Step::Frame(frame),
                // Woken by whoever doubts it.
                Ok(None) if self.link.is_doubted() => return Poll::Pending,
                Ok(None) => Step::Fin,
                Err(error) => Step::Fail(caller_left().caused_by(error)),
            });
        }
        let step = match ready!(self.poll_next(cx)) {
            Ok(Item::Data(bytes)) => Step::Frame(bytes),
            Ok(Item::Message(bytes)) => match late_message(bytes) {
                Late::Fin => Step::Fin,
                Late::Data(bytes) => Step::Frame(encode::data(&bytes)),
                Late::Reset(frame) if self.direction == Direction::Down => {
                    Step::Fail(reasons::from_reset(&frame))
                }
                Late::Reset(_) | Late::Opened | Late::Park | Late::Other => {
                    Step::Fail(reset("a frame came that does not belong here; dial again"))
                }
            },
            // A caller that ends its stream without a fin means the same by it;
            // an agent always says fin, so its end is a cut.
            Ok(Item::End(_)) if self.direction == Direction::Up => Step::Fin,
            Ok(Item::End(_)) => Step::Fail(reset("the agent ended the connection; dial again")),
            Err(error) => Step::Fail(match self.direction {
                Direction::Up => caller_left().caused_by(error),
                Direction::Down => broken(error),
            }),
        };
        Poll::Ready(step)
    }

    /// The end of the agent's direction, once it is known how it ends.
    fn poll_down_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.state == State::Tail
            && let Source::Stream(source) = &self.source
            && let Some(source) = source.lock().as_mut()
            && let Poll::Ready(tail) = poll_tail(source, self.again.is_some(), cx)
        {
            self.state = match tail? {
                Tail::Ended => State::Ended,
                Tail::Parked => State::Parked,
            };
        }
        let up = self.link.way(Direction::Up);
        if !up.finished && up.over {
            return Poll::Ready(Err(reset("the agent left before it took all that was sent")));
        }
        match self.state {
            State::Parked if !up.ended => Poll::Ready(Err(parked_early())),
            // The fin has left, and who sent it comes back to say so.
            State::Parked if !up.finished => Poll::Pending,
            State::Parked => {
                self.give_back();
                Poll::Ready(Ok(()))
            }
            State::Ended if up.finished => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn give_back(&mut self) {
        let Source::Stream(source) = &self.source else { return };
        let incoming = source.lock().take();
        if let (Some(again), Some(incoming)) = (self.again.take(), incoming) {
            again.give(&self.link, incoming);
        }
    }

    /// The end of the caller's direction: that of the other body, so that no
    /// proxy takes the agent's request for done while it goes on.
    fn poll_up_end(&self) -> Poll<Result<(), Fault>> {
        let down = self.link.way(Direction::Down);
        match (down.finished, down.over) {
            (_, false) => Poll::Pending,
            (true, true) => Poll::Ready(Ok(())),
            (false, true) => Poll::Ready(Err(caller_left())),
        }
    }

    /// The last frame, or none where the stream goes on.
    fn end(&mut self, result: Result<(), Fault>) -> Option<Result<Frame<Bytes>, Status>> {
        self.state = State::Done;
        self.link.over(self.direction);
        match result {
            Ok(()) if self.is_handed_back() => None,
            Ok(()) => Some(Ok(Frame::trailers(ok_trailers()))),
            Err(fault) if self.direction == Direction::Down => {
                Some(Ok(Frame::trailers(fault_trailers(fault))))
            }
            Err(_) => Some(Err(cancelled())),
        }
    }
}

/// What comes of the agent after its `fin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// The end of its request.
    Ended,
    /// Its stream is parked again.
    Parked,
}

/// What comes of the agent after its `fin`, or why it does not come to that.
pub(super) fn poll_tail(
    source: &mut Incoming,
    may_park: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Tail, Fault>> {
    let result = match ready!(source.poll_next(cx)) {
        Ok(Item::End(_)) => Ok(Tail::Ended),
        Ok(Item::Message(bytes)) => match late_message(bytes) {
            Late::Reset(frame) => Err(reasons::from_reset(&frame)),
            Late::Park if may_park => Ok(Tail::Parked),
            _ => Err(reset("a frame came after the fin; dial again")),
        },
        Ok(Item::Data(_)) => Err(reset("data came after the fin; dial again")),
        Err(error) => Err(broken(error)),
    };
    Poll::Ready(result)
}

/// An agent parked its stream before the caller had finished.
pub(super) fn parked_early() -> Fault {
    reset("the agent parked its stream before it had all that was sent; dial again")
}

/// What it is to an agent that nobody waits for its answer any more.
pub(super) fn caller_left() -> Fault {
    Fault::new(Reason::Cancelled, "the caller went away")
}

/// What it is to a caller that the agent's stream broke: the agent gave it up,
/// or its connection is lost.
pub(super) fn broken(error: IncomingError) -> Fault {
    if error.h2().is_some_and(|h2| h2.is_io() || h2.is_go_away()) {
        Fault::new(Reason::TunnelLost, "the tunnel of the connection is gone; dial again")
            .caused_by(error)
    } else {
        reset("the agent's stream broke; dial again").caused_by(error)
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.state == State::Done {
            return Poll::Ready(None);
        }
        // Also where it is over by now: the agent has reached the target, which may have
        // the first bytes, and whoever is told nothing of that would say them again.
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(fault) = this.link.watch(this.direction, cx) {
            return Poll::Ready(this.end(Err(fault)));
        }
        if std::mem::take(&mut this.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.state == State::Fin {
            // Who asks for more has taken it.
            this.state = State::Tail;
            this.link.finished(this.direction);
        }
        if this.state != State::Copying {
            let result = ready!(match this.direction {
                Direction::Down => this.poll_down_end(cx),
                Direction::Up => this.poll_up_end(),
            });
            if let Err(fault) = &result {
                this.link.abort(fault.clone());
            }
            return Poll::Ready(this.end(result));
        }
        if let Some(wait) = &mut this.wait {
            // Where the other direction is over only the source tells why.
            if !this.link.way(this.direction.other()).over {
                ready!(wait.as_mut().poll(cx));
            }
            this.wait = None;
        }
        match ready!(this.poll_source(cx)) {
            Step::Frame(bytes) => {
                this.link.count(this.direction, bytes.len());
                let wait = this.link.pace(this.direction, bytes.len());
                this.wait = wait.map(|wait| Box::pin(sleep(wait)));
                // A socket pauses by itself.
                this.pause = bytes.len() >= LARGE && matches!(this.source, Source::Stream(_));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Step::Fin => {
                match this.direction {
                    // An agent must not have its stream back before it took it.
                    Direction::Up => {
                        this.state = State::Fin;
                        this.link.ended(Direction::Up);
                    }
                    Direction::Down => {
                        this.state = State::Tail;
                        this.link.finished(Direction::Down);
                    }
                }
                if matches!(this.source, Source::Socket(_)) {
                    this.source = Source::Read;
                }
                Poll::Ready(Some(Ok(Frame::data(encode::FIN))))
            }
            Step::Fail(fault) => {
                this.link.abort(fault.clone());
                Poll::Ready(this.end(Err(fault)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Done && !self.is_handed_back()
    }
}

impl Drop for RelayBody {
    /// The receiver went away. Its direction is over; the other one finds out
    /// from its own source or, when that is done, from the link.
    fn drop(&mut self) {
        match self.direction {
            Direction::Up => self.link.over(Direction::Up),
            Direction::Down => self.link.caller_left(),
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
pub(super) mod tests;

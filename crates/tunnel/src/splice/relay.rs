//! One direction of a connection, as the body that its receiver reads.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;
use wolfpack_types::{Fault, Reason};

use super::link::{Direction, Link, Way};
use crate::grpc::{fault_trailers, ok_trailers};
use crate::protocol::encode;
use crate::reasons;
use crate::stream::{Incoming, Item, LARGE, Late, late_message, reset};

/// Passes frames of one request on as the response to another. It ends with
/// OK only when both directions have finished; a reset, a lost stream or an
/// abort of the [`Link`] ends it with that fault.
pub struct RelayBody {
    link: Link,
    direction: Direction,
    source: Incoming,
    first: Option<Bytes>,
    state: State,
    pause: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    /// `fin` was passed on; the other direction goes on.
    Tail,
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
        Self { link, direction, source, first, state: State::Copying, pause: false }
    }

    /// Reads the source once.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let step = match ready!(self.source.poll_next(cx)) {
            Ok(Item::Data(bytes)) => Step::Frame(bytes),
            Ok(Item::Message(bytes)) => match late_message(bytes) {
                Late::Fin => Step::Fin,
                Late::Data(bytes) => Step::Frame(encode::data(&bytes)),
                Late::Reset(frame) if self.direction == Direction::Down => {
                    Step::Fail(reasons::from_reset(&frame))
                }
                Late::Reset(_) | Late::Opened | Late::Other => {
                    Step::Fail(reset("a frame came that does not belong here; dial again"))
                }
            },
            // A caller that ends its stream without a fin means the same by it;
            // an agent always says fin, so its end is a cut.
            Ok(Item::End(_)) if self.direction == Direction::Up => Step::Fin,
            Ok(Item::End(_)) => Step::Fail(reset("the agent ended the connection; dial again")),
            Err(error) => Step::Fail(match self.direction {
                Direction::Up => {
                    Fault::new(Reason::Cancelled, "the caller went away").caused_by(error)
                }
                Direction::Down => reset("the agent's stream broke; dial again").caused_by(error),
            }),
        };
        Poll::Ready(step)
    }

    fn fail(&mut self, fault: Fault) -> Frame<Bytes> {
        self.state = State::Done;
        Frame::trailers(fault_trailers(fault))
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
        if let Some(fault) = this.link.watch(this.direction, cx) {
            return Poll::Ready(Some(Ok(this.fail(fault))));
        }
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if std::mem::take(&mut this.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.state == State::Tail {
            return match (this.link.way(this.direction.other()), this.direction) {
                (Way::Open, _) => Poll::Pending,
                // A target that said all it had to say and left is no error to
                // the caller; a caller that left before the answer is one to
                // the agent.
                (Way::Finished, _) | (Way::Gone, Direction::Down) => {
                    this.state = State::Done;
                    Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
                }
                (Way::Gone, Direction::Up) => {
                    let fault = Fault::new(Reason::Cancelled, "the caller went away");
                    Poll::Ready(Some(Ok(this.fail(fault))))
                }
            };
        }
        match ready!(this.poll_source(cx)) {
            Step::Frame(bytes) => {
                this.link.count(this.direction, bytes.len());
                this.pause = bytes.len() >= LARGE;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Step::Fin => {
                this.state = State::Tail;
                this.link.set_way(this.direction, Way::Finished);
                Poll::Ready(Some(Ok(Frame::data(encode::FIN))))
            }
            Step::Fail(fault) => {
                this.link.abort(fault.clone());
                Poll::Ready(Some(Ok(this.fail(fault))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Done
    }
}

impl Drop for RelayBody {
    /// The receiver went away. Its direction is over; the other one finds out
    /// from its own source or, when that is done, from the link.
    fn drop(&mut self) {
        self.link.set_way(self.direction, Way::Gone);
    }
}

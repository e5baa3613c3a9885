//! What an agent sends on a Carry stream: a state machine that polls the
//! socket, or the program's buffer, itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wolfpack_proto::tunnel::v1::{CarryRequest, carry_request};
use wolfpack_types::{Fault, Reason};

use crate::protocol::encode;
use crate::reasons;
use crate::stream::{Pipe, SocketReader, Take, reset};

/// Where the bytes of a connection come from.
pub(super) enum Source {
    /// A program writes them.
    Pipe(Arc<Pipe>),
    /// A socket gives them.
    Socket(SocketReader),
}

enum Command {
    /// With whether the stream is parked again afterwards.
    Serve(Source, bool),
    Refuse(Bytes),
    Retire,
    /// All ended well.
    End,
}

#[derive(Default)]
struct Slot {
    command: Option<Command>,
    /// How the caller's direction ended: with the frame to say it by, if it did
    /// not end well.
    settled: Option<Option<Bytes>>,
    waker: Option<Waker>,
    /// Of the next connection, once the stream is parked again.
    next: Option<CarryControl>,
}

/// Tells a body what to do, for one connection; cheap to clone.
#[derive(Clone)]
pub(super) struct CarryControl {
    slot: Arc<Mutex<Slot>>,
    gone: CancellationToken,
    said: CancellationToken,
    over: CancellationToken,
}

impl CarryControl {
    fn new() -> Self {
        Self {
            slot: Arc::default(),
            gone: CancellationToken::new(),
            said: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }

    /// The target was reached: say so and send what it gives.
    pub(super) fn serve(&self, source: Source) {
        self.set(Command::Serve(source, false));
    }

    /// As [`CarryControl::serve`]; when all ended well the stream is parked
    /// again. Only for whoever then reads what comes next: [`CarryControl::next`].
    pub(super) fn serve_and_park(&self, source: Source) {
        self.set(Command::Serve(source, true));
    }

    /// Once the body has [finished](CarryControl::finished): what steers it in its
    /// next connection, if it was parked again.
    pub(super) fn next(&self) -> Option<Self> {
        self.slot.lock().next.take()
    }

    /// The target was not reached, or the connection is over: say why and end.
    pub(super) fn refuse(&self, fault: &Fault) {
        self.set(Command::Refuse(reset_frame(fault)));
    }

    /// The caller's direction is over: the target took all the caller sent, or
    /// why it did not. The body still sends all the target has to say, and only
    /// then ends, or tells of the fault. The first call counts.
    pub(super) fn settle(&self, result: Result<(), Fault>) {
        let mut slot = self.slot.lock();
        slot.settled.get_or_insert_with(|| result.err().map(|fault| reset_frame(&fault)));
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// End without a word.
    pub(super) fn retire(&self) {
        self.set(Command::Retire);
    }

    /// Cancelled when the stream was torn down before the body had finished.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Waits until the target has said all, or the body was torn down.
    pub(super) async fn said(&self) {
        self.said.cancelled().await;
    }

    /// Waits until the body has sent all it will of this connection, or was torn
    /// down.
    pub(super) async fn finished(&self) {
        self.over.cancelled().await;
    }

    fn set(&self, command: Command) {
        let mut slot = self.slot.lock();
        slot.command = Some(command);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

enum State {
    First(Bytes),
    Waiting,
    Serving(Source),
    /// The target has said all; the caller may still be sending.
    Tail,
    Last(Bytes),
    Done,
}

/// The body of a Carry request.
pub(super) struct CarryRequestBody {
    state: State,
    control: CarryControl,
    /// Park again after this connection.
    again: bool,
}

impl CarryRequestBody {
    /// A body that begins with `park`, and what to steer it by.
    pub(super) fn new(park: Bytes) -> (Self, CarryControl) {
        let control = CarryControl::new();
        let first = State::First(park);
        (Self { state: first, control: control.clone(), again: false }, control)
    }

    /// The target has said all: the frame that says so.
    fn fin(&mut self) -> Frame<Bytes> {
        self.state = State::Tail;
        self.control.said.cancel();
        Frame::data(encode::FIN)
    }

    /// The connection ended well: the frame that parks the stream again.
    fn park(&mut self) -> Frame<Bytes> {
        self.state = State::Waiting;
        let over = std::mem::replace(&mut self.control, CarryControl::new());
        over.slot.lock().next = Some(self.control.clone());
        over.said.cancel();
        over.over.cancel();
        Frame::data(encode::PARK_AGAIN)
    }
}

fn reset_frame(fault: &Fault) -> Bytes {
    let frame = CarryRequest { frame: Some(carry_request::Frame::Reset(reasons::to_reset(fault))) };
    encode::message(&frame)
}

impl Body for CarryRequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            // Steering comes first, but never before the first message.
            if !matches!(this.state, State::First(_) | State::Last(_) | State::Done) {
                let mut slot = this.control.slot.lock();
                let command = slot.command.take().or_else(|| match this.state {
                    State::Tail => slot.settled.take().map(|fault| match fault {
                        Some(frame) => Command::Refuse(frame),
                        None => Command::End,
                    }),
                    _ => None,
                });
                if command.is_none() {
                    match &mut slot.waker {
                        Some(waker) => waker.clone_from(cx.waker()),
                        None => slot.waker = Some(cx.waker().clone()),
                    }
                }
                drop(slot);
                match command {
                    Some(Command::Serve(source, again)) => {
                        this.state = State::Serving(source);
                        this.again = again;
                        return Poll::Ready(Some(Ok(Frame::data(encode::OPENED))));
                    }
                    Some(Command::Refuse(frame)) => {
                        this.break_pipe();
                        this.state = State::Last(frame);
                    }
                    Some(Command::End) if this.again => return Poll::Ready(Some(Ok(this.park()))),
                    Some(Command::Retire | Command::End) => {
                        this.break_pipe();
                        this.state = State::Done;
                    }
                    None => {}
                }
            }
            match &mut this.state {
                State::First(frame) | State::Last(frame) => {
                    let frame = std::mem::take(frame);
                    this.state = if matches!(this.state, State::First(_)) {
                        State::Waiting
                    } else {
                        State::Done
                    };
                    return Poll::Ready(Some(Ok(Frame::data(frame))));
                }
                State::Waiting | State::Tail => return Poll::Pending,
                State::Serving(Source::Pipe(pipe)) => match ready!(pipe.poll_take(cx)) {
                    Take::Data(frame) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                    Take::Fin => return Poll::Ready(Some(Ok(this.fin()))),
                    Take::Abort => {
                        let fault = reset("the target dropped the connection");
                        this.state = State::Last(reset_frame(&fault));
                    }
                },
                State::Serving(Source::Socket(socket)) => match ready!(socket.poll_frame(cx)) {
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                    Ok(None) => return Poll::Ready(Some(Ok(this.fin()))),
                    Err(error) => {
                        let fault =
                            Fault::new(Reason::ConnectionReset, "the target broke the connection")
                                .caused_by(error);
                        this.state = State::Last(reset_frame(&fault));
                    }
                },
                State::Done => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

impl CarryRequestBody {
    fn break_pipe(&self) {
        if let State::Serving(Source::Pipe(pipe)) = &self.state {
            pipe.break_with(reset("the connection was ended by the tunnel"));
        }
    }
}

impl Drop for CarryRequestBody {
    fn drop(&mut self) {
        if !matches!(self.state, State::Done) {
            self.break_pipe();
            self.control.gone.cancel();
        }
        self.control.said.cancel();
        self.control.over.cancel();
    }
}

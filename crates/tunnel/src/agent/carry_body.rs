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
    Serve(Source),
    Refuse(Bytes),
    Retire,
}

#[derive(Default)]
struct Slot {
    command: Option<Command>,
    waker: Option<Waker>,
}

/// Tells a body what to do; cheap to clone.
#[derive(Clone)]
pub(super) struct CarryControl {
    slot: Arc<Mutex<Slot>>,
    gone: CancellationToken,
    over: CancellationToken,
}

impl CarryControl {
    /// The target was reached: say so and send what it gives.
    pub(super) fn serve(&self, source: Source) {
        self.set(Command::Serve(source));
    }

    /// The target was not reached, or the connection is over: say why and end.
    pub(super) fn refuse(&self, fault: &Fault) {
        let frame =
            CarryRequest { frame: Some(carry_request::Frame::Reset(reasons::to_reset(fault))) };
        self.set(Command::Refuse(encode::message(&frame)));
    }

    /// End without a word.
    pub(super) fn retire(&self) {
        self.set(Command::Retire);
    }

    /// Cancelled when the stream was torn down before the body had finished.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Waits until the body has sent all it will, or was torn down.
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
    Last(Bytes),
    Done,
}

/// The body of a Carry request.
pub(super) struct CarryRequestBody {
    state: State,
    control: CarryControl,
}

impl CarryRequestBody {
    /// A body that begins with `park`, and what to steer it by.
    pub(super) fn new(park: Bytes) -> (Self, CarryControl) {
        let control = CarryControl {
            slot: Arc::default(),
            gone: CancellationToken::new(),
            over: CancellationToken::new(),
        };
        (Self { state: State::First(park), control: control.clone() }, control)
    }

    fn reset_frame(fault: &Fault) -> State {
        let frame =
            CarryRequest { frame: Some(carry_request::Frame::Reset(reasons::to_reset(fault))) };
        State::Last(encode::message(&frame))
    }
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
                let command = slot.command.take();
                if command.is_none() {
                    match &mut slot.waker {
                        Some(waker) => waker.clone_from(cx.waker()),
                        None => slot.waker = Some(cx.waker().clone()),
                    }
                }
                drop(slot);
                match command {
                    Some(Command::Serve(source)) => {
                        this.state = State::Serving(source);
                        return Poll::Ready(Some(Ok(Frame::data(encode::OPENED))));
                    }
                    Some(Command::Refuse(frame)) => {
                        this.break_pipe();
                        this.state = State::Last(frame);
                    }
                    Some(Command::Retire) => {
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
                State::Waiting => return Poll::Pending,
                State::Serving(Source::Pipe(pipe)) => match ready!(pipe.poll_take(cx)) {
                    Take::Data(frame) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                    Take::Fin => this.state = State::Last(encode::FIN),
                    Take::Abort => {
                        this.state = Self::reset_frame(&reset("the target dropped the connection"));
                    }
                },
                State::Serving(Source::Socket(socket)) => match ready!(socket.poll_frame(cx)) {
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                    Ok(None) => this.state = State::Last(encode::FIN),
                    Err(error) => {
                        let fault =
                            Fault::new(Reason::ConnectionReset, "the target broke the connection")
                                .caused_by(error);
                        this.state = Self::reset_frame(&fault);
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
        self.control.over.cancel();
    }
}

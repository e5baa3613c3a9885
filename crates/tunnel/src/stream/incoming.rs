//! Frames of one direction as they arrive in an HTTP body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use prost::Message as _;
use tonic::Status;
use tonic::body::Body;
use wolfpack_proto::tunnel::v1::{CarryRequest, Reset, carry_request};

use crate::life::LifeMark;
use crate::protocol::{DataMode, DecodeError, Decoder, Event};

/// What arrived.
#[derive(Debug)]
pub(crate) enum Item {
    /// A piece of data in the mode of the decoder.
    Data(Bytes),
    /// A message that is not plain data.
    Message(Bytes),
    /// The end: the status of a response, nothing for a request.
    End(Option<Status>),
}

/// Why nothing more will arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncomingError {
    /// The bytes are not frames.
    #[error("the other side broke the protocol")]
    Frames(#[from] DecodeError),
    /// The stream was reset or its connection was lost.
    #[error("the stream broke")]
    Broken(#[source] Box<Status>),
}

impl IncomingError {
    /// What HTTP/2 says of it.
    pub(crate) fn h2(&self) -> Option<&h2::Error> {
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            if let Some(h2) = inner.downcast_ref::<h2::Error>() {
                return Some(h2);
            }
            cause = inner.source();
        }
        None
    }
}

/// Reads frames out of a body, by polling it; holds one piece at a time, so a
/// reader that stops lets the peer's window run full and nothing else.
pub(crate) struct Incoming {
    body: Body,
    decoder: Decoder,
    life: Option<LifeMark>,
    status: Option<Status>,
    ended: bool,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Incoming {
    pub(crate) fn new(body: Body, mode: DataMode) -> Self {
        Self { body, decoder: Decoder::new(mode), life: None, status: None, ended: false }
    }

    /// Gives data in another mode from now on.
    pub(crate) fn set_mode(&mut self, mode: DataMode) {
        self.decoder.set_mode(mode);
    }

    /// Counts bytes from now on as life of the peer.
    pub(crate) fn set_life(&mut self, life: LifeMark) {
        self.life = Some(life);
    }

    /// The next thing that arrived. After the end it gives the end again; after
    /// an error it must not be polled.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Item, IncomingError>> {
        loop {
            match self.decoder.next_event()? {
                Some(Event::Data(bytes)) => return Poll::Ready(Ok(Item::Data(bytes))),
                Some(Event::Message(bytes)) => return Poll::Ready(Ok(Item::Message(bytes))),
                None => {}
            }
            if self.ended {
                let failed =
                    self.status.as_ref().is_some_and(|status| status.code() != tonic::Code::Ok);
                if !failed && !self.decoder.at_boundary() {
                    return Poll::Ready(Err(DecodeError::Truncated.into()));
                }
                return Poll::Ready(Ok(Item::End(self.status.clone())));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(status)) => {
                    return Poll::Ready(Err(IncomingError::Broken(Box::new(status))));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => {
                        if let Some(life) = &self.life {
                            life.mark();
                        }
                        self.decoder.push(chunk);
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.status = Status::from_header_map(&trailers);
                            self.ended = true;
                        }
                    }
                },
            }
        }
    }

    /// As [`Incoming::poll_next`], for use before the bytes flow. Cancelling it
    /// loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Item, IncomingError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

/// A message that may come once a connection is open.
#[derive(Debug)]
pub(crate) enum Late {
    /// The sender will send no more.
    Fin,
    /// Data in a form that is not the plain one.
    Data(Bytes),
    /// The sender gave up.
    Reset(Reset),
    /// The agent reached the target.
    Opened,
    /// The agent is done with the connection and waits for another.
    Park,
    /// Nothing that belongs here.
    Other,
}

/// Reads a message of an open connection. `data`, `fin`, `opened` and `reset`
/// have the same numbers wherever they exist, so one reader serves all.
pub(crate) fn late_message(bytes: Bytes) -> Late {
    use carry_request::Frame;
    match CarryRequest::decode(bytes).ok().and_then(|message| message.frame) {
        Some(Frame::Fin(_)) => Late::Fin,
        Some(Frame::Data(data)) => Late::Data(data),
        Some(Frame::Reset(reset)) => Late::Reset(reset),
        Some(Frame::Opened(_)) => Late::Opened,
        Some(Frame::Park(_)) => Late::Park,
        None => Late::Other,
    }
}

//! A connection as `AsyncRead + AsyncWrite`.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::ReadBuf;
use tokio::sync::oneshot;
use wolfpack_rpc::RequestCut;
use wolfpack_types::Fault;

use super::{Incoming, Item, Late, Pipe, cut_off, io_error, late_message, reset};

/// Both directions of a connection for a program. The reading side polls the
/// body of the response itself; the writing side fills a [`Pipe`] that the body
/// of the request takes from.
#[derive(Debug)]
pub(crate) struct ByteStream {
    incoming: Option<Incoming>,
    unread: Bytes,
    end: Option<End>,
    pipe: Arc<Pipe>,
    returning: Option<Returning>,
    cut: Option<RequestCut>,
}

/// What is left of the incoming direction of a stream that was dropped.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) incoming: Incoming,
    pub(crate) read: Read,
}

/// How far a stream was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// To the other side's fin.
    All,
    /// All that had been taken off the stream; more may come.
    SoFar,
    /// Bytes were taken off the stream that nobody read.
    NotAll,
}

/// Whom to tell how a stream was read.
pub(crate) struct Returning {
    leftover: oneshot::Sender<Leftover>,
    at_fin: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Returning {
    /// `leftover` gets what is left when the stream is dropped; `at_fin` is
    /// called once it was read to the other side's fin.
    pub(crate) fn new(
        leftover: oneshot::Sender<Leftover>,
        at_fin: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self { leftover, at_fin: Some(Box::new(at_fin)) }
    }
}

impl std::fmt::Debug for Returning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Returning")
    }
}

#[derive(Debug)]
enum End {
    Fin,
    Failed(Fault),
}

impl ByteStream {
    pub(crate) fn new(incoming: Incoming, unread: Bytes, pipe: Arc<Pipe>) -> Self {
        Self { incoming: Some(incoming), unread, end: None, pipe, returning: None, cut: None }
    }

    /// As [`ByteStream::new`]; what is left of the incoming direction when the
    /// stream is dropped goes where `returning` says. As long as somebody holds it, HTTP/2
    /// does not reset the stream, and what was written still leaves.
    pub(crate) fn returning(
        incoming: Incoming,
        unread: Bytes,
        pipe: Arc<Pipe>,
        returning: Returning,
    ) -> Self {
        let mut stream = Self::new(incoming, unread, pipe);
        stream.returning = Some(returning);
        stream
    }

    /// As [`ByteStream::new`]; a stream that is dropped before both sides have
    /// finished is cut off, even from a peer that reads nothing.
    pub(crate) fn cutting(
        incoming: Incoming,
        unread: Bytes,
        pipe: Arc<Pipe>,
        cut: RequestCut,
    ) -> Self {
        let mut stream = Self::new(incoming, unread, pipe);
        stream.cut = Some(cut);
        stream
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !self.unread.is_empty() {
                let length = self.unread.len().min(out.remaining());
                out.put_slice(&self.unread[..length]);
                self.unread.advance(length);
                return Poll::Ready(Ok(()));
            }
            match &self.end {
                Some(End::Fin) => return Poll::Ready(Ok(())),
                Some(End::Failed(fault)) => return Poll::Ready(Err(io_error(fault.clone()))),
                None => {}
            }
            let Some(incoming) = &mut self.incoming else { return Poll::Ready(Ok(())) };
            match ready!(incoming.poll_next(cx)) {
                Ok(Item::Data(bytes)) => self.unread = bytes,
                Ok(Item::Message(bytes)) => match late_message(bytes) {
                    Late::Fin => {
                        self.end = Some(End::Fin);
                        if let Some(at_fin) = self.returning.as_mut().and_then(|r| r.at_fin.take())
                        {
                            at_fin();
                        }
                    }
                    Late::Data(bytes) => self.unread = bytes,
                    Late::Reset(frame) => {
                        self.fail(crate::reasons::from_reset(&frame));
                    }
                    Late::Opened | Late::Park | Late::Other => {
                        self.fail(reset("the other side broke the protocol"));
                    }
                },
                Ok(Item::End(Some(status))) if status.code() != tonic::Code::Ok => {
                    self.fail(wolfpack_rpc::error::from_status(&status));
                }
                Ok(Item::End(_)) => self.fail(reset("the connection ended before all was sent")),
                // To a caller the broker says why, in a status.
                Err(error) if self.cut.is_some() => {
                    self.fail(reset("the connection was cut").caused_by(error));
                }
                Err(error) => self.fail(cut_off(error)),
            }
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pipe.poll_write(cx, bytes)
    }

    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        self.pipe.finish()
    }

    /// Waits, after both directions have finished, until the other side has
    /// taken all that was written: it ends the call then.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(End::Failed(fault)) = &self.end {
                return Poll::Ready(Err(io_error(fault.clone())));
            }
            let Some(incoming) = &mut self.incoming else { return Poll::Ready(Ok(())) };
            match ready!(incoming.poll_next(cx)) {
                // What nobody reads any more.
                Ok(Item::Data(_) | Item::Message(_)) => {}
                Ok(Item::End(Some(status))) if status.code() != tonic::Code::Ok => {
                    self.fail(wolfpack_rpc::error::from_status(&status));
                }
                Ok(Item::End(_)) => self.incoming = None,
                Err(error) => self.fail(reset("the connection was cut").caused_by(error)),
            }
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.pipe.break_with(fault.clone());
        self.end = Some(End::Failed(fault));
        self.incoming = None;
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        let finished = self.pipe.close();
        if let Some(cut) = self.cut.take()
            && !(finished && matches!(self.end, Some(End::Fin)))
        {
            cut.cut();
        }
        if let (Some(returning), Some(incoming)) = (self.returning.take(), self.incoming.take()) {
            let read = match self.end {
                Some(_) => Read::All,
                None if self.unread.is_empty() => Read::SoFar,
                None => Read::NotAll,
            };
            let _ = returning.leftover.send(Leftover { incoming, read });
        }
    }
}

/// Implements `AsyncRead` and `AsyncWrite` by a field `stream: ByteStream`.
macro_rules! byte_stream_io {
    ($name:ident) => {
        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut Context<'_>,
                out: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<std::io::Result<()>> {
                self.stream.poll_read(cx, out)
            }
        }

        impl tokio::io::AsyncWrite for $name {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<std::io::Result<usize>> {
                self.stream.poll_write(cx, bytes)
            }

            /// Written bytes are on their way at once; there is nothing to do.
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<std::io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            /// Half-closes: the other side reads to the end and may go on
            /// sending. What was written before still arrives.
            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<std::io::Result<()>> {
                Poll::Ready(self.stream.shutdown())
            }
        }
    };
}
pub(crate) use byte_stream_io;

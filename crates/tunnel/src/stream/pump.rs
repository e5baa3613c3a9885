//! Writes what arrives to a socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tonic::Status;
use wolfpack_proto::tunnel::v1::Reset;

use super::{Incoming, IncomingError, Item, Late, late_message};
use crate::protocol::MOST_CHUNK;

/// Pieces written to a socket at once, of frames that are small; of others as many as
/// make up the largest.
const GATHER: usize = 4;

/// How much the socket took of what was sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// All, up to the sender's fin.
    All,
    /// It reads no more.
    Part,
}

/// Why nothing more is written.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// The sender gave up, and says why.
    Reset(Reset),
    /// The sender ended its stream before its fin, with this status if it is a
    /// response.
    Ended(Option<Status>),
    /// The stream broke, or what came were no frames.
    Broken(IncomingError),
    /// A frame came that does not belong there.
    Protocol,
    /// The socket broke.
    Socket(io::Error),
}

/// Writes `first` and then what arrives to the socket, until the sender has
/// finished; `wrote` is told of each count of bytes that the socket took, and may
/// ask for a pause before the next.
/// Gathers what is there into one vectored write, and never holds more than that.
///
/// # Errors
/// When either side breaks. Cancelling it loses what was taken and not written.
pub(crate) async fn pump(
    writer: &mut (impl AsyncWrite + Unpin),
    first: Bytes,
    incoming: &mut Incoming,
    mut wrote: impl FnMut(usize) -> Option<Duration>,
) -> Result<Taken, PumpError> {
    let mut pieces = Pieces::default();
    pieces.add(first);
    loop {
        let last = gather(incoming, &mut pieces).await?;
        let count = pieces.remaining();
        if count > 0 {
            match write(writer, &mut pieces).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(Taken::Part);
                }
                Err(error) => return Err(PumpError::Socket(error)),
            }
            if let Some(wait) = wrote(count) {
                tokio::time::sleep(wait).await;
            }
        }
        if last {
            // A socket that is gone already needs no goodbye.
            let _ = writer.shutdown().await;
            return Ok(Taken::All);
        }
    }
}

/// Writes all pieces; a single one, as most are, by the cheaper call.
async fn write(writer: &mut (impl AsyncWrite + Unpin), pieces: &mut Pieces) -> io::Result<()> {
    if let ([piece], []) = pieces.queue.as_slices() {
        let written = writer.write(piece).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        pieces.advance(written);
    }
    if pieces.has_remaining() {
        writer.write_all_buf(pieces).await?;
    }
    writer.flush().await
}

/// Collects what is there, waiting only while there is nothing; true after the
/// sender's fin.
async fn gather(incoming: &mut Incoming, pieces: &mut Pieces) -> Result<bool, PumpError> {
    std::future::poll_fn(|cx| {
        while pieces.queue.len() < GATHER && pieces.bytes < MOST_CHUNK {
            let item = match incoming.poll_next(cx) {
                Poll::Ready(item) => item,
                Poll::Pending if pieces.queue.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            };
            match item {
                Ok(Item::Data(bytes)) => pieces.add(bytes),
                Ok(Item::Message(bytes)) => match late_message(bytes) {
                    Late::Fin => return Poll::Ready(Ok(true)),
                    Late::Data(bytes) => pieces.add(bytes),
                    Late::Reset(frame) => return Poll::Ready(Err(PumpError::Reset(frame))),
                    Late::Opened | Late::Park | Late::Other => {
                        return Poll::Ready(Err(PumpError::Protocol));
                    }
                },
                Ok(Item::End(status)) => return Poll::Ready(Err(PumpError::Ended(status))),
                Err(error) => return Poll::Ready(Err(PumpError::Broken(error))),
            }
        }
        Poll::Ready(Ok(false))
    })
    .await
}

/// Pieces that leave with one vectored write.
#[derive(Default)]
struct Pieces {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    fn add(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.queue.push_back(piece);
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.queue.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slot, piece) in out.iter_mut().zip(&self.queue) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(front) = self.queue.front_mut() else { return };
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.queue.pop_front();
        }
    }
}

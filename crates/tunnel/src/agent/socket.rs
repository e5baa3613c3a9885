//! A connection whose target is a socket.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::Poll;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason};

use super::carry::{left_early, to_end};
use super::carry_body::{CarryControl, Source};
use super::target::TargetStream;
use crate::stream::{Incoming, Item, Late, SocketReader, cut_off, late_message, reset};

/// Pieces written to a socket at once.
const GATHER: usize = 16;

/// Runs a connection to a socket: the body reads it, this task writes it.
pub(super) async fn serve(
    stream: TargetStream,
    early: Bytes,
    mut incoming: Incoming,
    control: &CarryControl,
) {
    let TargetStream { reader, mut writer } = stream;
    control.serve(Source::Socket(SocketReader::new(reader)));
    let pump = pump(&mut writer, early, &mut incoming);
    let result = tokio::select! {
        result = pump => result,
        () = control.gone().cancelled() => return,
    };
    match result {
        Ok(Taken::All) => control.settle(Ok(())),
        // It may still have something to say, and the body tells when it has.
        Ok(Taken::Part) => control.settle(Err(left_early())),
        Err(fault) => control.refuse(&fault),
    }
    drop(writer);
    to_end(incoming).await;
    control.finished().await;
}

/// How much the target took of what the caller sent.
enum Taken {
    /// All, up to the caller's fin.
    All,
    /// It reads no more.
    Part,
}

/// Writes what arrives to the socket until the caller has finished.
async fn pump(
    writer: &mut Box<dyn AsyncWrite + Send + Unpin>,
    early: Bytes,
    incoming: &mut Incoming,
) -> Result<Taken, Fault> {
    let broke = |error: std::io::Error| {
        Fault::new(Reason::ConnectionReset, "the target broke the connection").caused_by(error)
    };
    let mut pieces = Pieces::default();
    pieces.add(early);
    loop {
        let last = gather(incoming, &mut pieces).await?;
        if pieces.has_remaining() {
            match writer.write_all_buf(&mut pieces).await {
                Ok(()) => writer.flush().await.map_err(broke)?,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    return Ok(Taken::Part);
                }
                Err(error) => return Err(broke(error)),
            }
        }
        if last {
            // A target that is gone already needs no goodbye.
            let _ = writer.shutdown().await;
            return Ok(Taken::All);
        }
    }
}

/// Collects what is there, waiting only while there is nothing; true after the
/// caller's fin.
async fn gather(incoming: &mut Incoming, pieces: &mut Pieces) -> Result<bool, Fault> {
    std::future::poll_fn(|cx| {
        while pieces.queue.len() < GATHER {
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
                    Late::Reset(frame) => {
                        return Poll::Ready(Err(crate::reasons::from_reset(&frame)));
                    }
                    Late::Opened | Late::Other => {
                        return Poll::Ready(Err(reset("the broker broke the protocol")));
                    }
                },
                Ok(Item::End(Some(status))) => return Poll::Ready(Err(from_status(&status))),
                Ok(Item::End(None)) => return Poll::Ready(Err(reset("the connection was cut"))),
                Err(error) => return Poll::Ready(Err(cut_off(error))),
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

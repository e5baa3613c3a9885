//! A socket read straight into frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;
use wolfpack_rpc::ByteBudget;

use super::blocks::Block;
use super::{LARGE, blocks};
use crate::protocol::Chunk;
use crate::protocol::encode::{HEADROOM, seal_data};

/// The smallest room to read into; what is left of a block below it is given
/// up for a new one.
const LEAST_ROOM: usize = 16 * 1024;

/// A read below this is copied out: frames that wait must not hold a block each.
const SMALL: usize = 1024;

struct Given {
    length: usize,
    /// There was room for more.
    drained: bool,
    at: Instant,
}

/// Reads a socket in chunks, each with room before it for its frame header.
/// Holds no memory while the socket has nothing.
pub(crate) struct SocketReader {
    socket: Box<dyn AsyncRead + Send + Unpin>,
    budget: ByteBudget,
    chunk: Chunk,
    block: Option<Block>,
    /// The last frame, if it or the chunk was large, until the next is asked for.
    given: Option<Given>,
    pause: bool,
}

impl SocketReader {
    /// Chunks grow only where `budget` lets connections send far ahead.
    pub(crate) fn new(socket: Box<dyn AsyncRead + Send + Unpin>, budget: ByteBudget) -> Self {
        let chunk = Chunk::default();
        Self { socket, budget, chunk, block: None, given: None, pause: false }
    }

    /// The next frame; `None` at the end of the socket.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Some(Given { length, drained, at }) = self.given.take() {
            self.chunk.passed(length, drained, at.elapsed(), self.budget.window());
        }
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.chunk.has_grown() {
            self.chunk = self.chunk.within(self.budget.window());
        }
        let mut block = match self.block.take() {
            Some(block)
                if block.memory.capacity() >= HEADROOM + LEAST_ROOM
                // A frame pins its whole block.
                && block.is_for(self.chunk) =>
            {
                block
            }
            full => {
                full.into_iter().for_each(blocks::put);
                blocks::take(self.chunk)
            }
        };
        let memory = &mut block.memory;
        memory.put_bytes(0, HEADROOM);
        let offered = self.chunk.bytes().min(memory.capacity() - HEADROOM);
        let mut room = (&mut *memory).limit(offered);
        let read = poll_read_buf(Pin::new(&mut self.socket), cx, &mut room);
        let Poll::Ready(Ok(length @ 1..)) = read else {
            blocks::put(block);
            return read.map_ok(|_| None);
        };
        self.pause = length >= LARGE;
        // What is small tells only that a chunk may be so, too, and a clock costs.
        self.given = (self.pause || self.chunk.has_grown()).then(|| Given {
            length,
            drained: length < offered,
            at: Instant::now(),
        });
        let frame = if length < SMALL {
            let small = BytesMut::from(&memory[..]);
            memory.clear();
            small
        } else {
            memory.split()
        };
        let frame = seal_data(frame);
        self.block = Some(block);
        Poll::Ready(Ok(Some(frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{DataMode, Decoder, Event, MOST_CHUNK};

    #[tokio::test]
    async fn frames_hold_exactly_what_the_socket_gave() {
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 251) as u8).collect();
        let source = Box::new(std::io::Cursor::new(bytes.clone()));
        let budget = ByteBudget::new(64 << 20, 2 << 20);
        let mut reader = SocketReader::new(source, budget);
        let mut largest = 0;
        let mut decoder = Decoder::new(DataMode::Payload);
        let mut out = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| reader.poll_frame(cx)).await.unwrap() {
            assert!(frame.len() <= MOST_CHUNK + HEADROOM);
            largest = largest.max(frame.len());
            decoder.push(frame);
            while let Some(event) = decoder.next_event().unwrap() {
                let Event::Data(piece) = event else { panic!("not data") };
                out.extend_from_slice(&piece);
            }
        }
        assert!(decoder.at_boundary());
        assert_eq!(out, bytes);
        assert!(largest > MOST_CHUNK / 2, "they grow: {largest}");
    }
}

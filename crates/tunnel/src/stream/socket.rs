//! A socket read straight into frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::{LARGE, blocks};
use crate::protocol::CHUNK;
use crate::protocol::encode::{HEADROOM, seal_data};

/// The smallest room to read into; what is left of a block below it is given
/// up for a new one.
const LEAST_ROOM: usize = 16 * 1024;

/// A read below this is copied out: frames that wait must not hold a block each.
const SMALL: usize = 1024;

/// Reads a socket in chunks, each with room before it for its frame header.
/// Holds no memory while the socket has nothing.
pub(crate) struct SocketReader {
    socket: Box<dyn AsyncRead + Send + Unpin>,
    block: Option<BytesMut>,
    pause: bool,
}

impl SocketReader {
    pub(crate) fn new(socket: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Self { socket, block: None, pause: false }
    }

    /// The next frame; `None` at the end of the socket.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut block = match self.block.take() {
            Some(block) if block.capacity() >= HEADROOM + LEAST_ROOM => block,
            full => {
                full.into_iter().for_each(blocks::put);
                blocks::take()
            }
        };
        block.put_bytes(0, HEADROOM);
        let mut room = (&mut block).limit(CHUNK);
        let read = poll_read_buf(Pin::new(&mut self.socket), cx, &mut room);
        let Poll::Ready(Ok(length @ 1..)) = read else {
            blocks::put(block);
            return read.map_ok(|_| None);
        };
        self.pause = length >= LARGE;
        let frame = if length < SMALL {
            let small = BytesMut::from(&block[..]);
            block.clear();
            small
        } else {
            block.split()
        };
        let frame = seal_data(frame);
        self.block = Some(block);
        Poll::Ready(Ok(Some(frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{DataMode, Decoder, Event};

    #[tokio::test]
    async fn frames_hold_exactly_what_the_socket_gave() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        let mut reader = SocketReader::new(Box::new(std::io::Cursor::new(bytes.clone())));
        let mut decoder = Decoder::new(DataMode::Payload);
        let mut out = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| reader.poll_frame(cx)).await.unwrap() {
            assert!(frame.len() <= CHUNK + HEADROOM);
            decoder.push(frame);
            while let Some(event) = decoder.next_event().unwrap() {
                let Event::Data(piece) = event else { panic!("not data") };
                out.extend_from_slice(&piece);
            }
        }
        assert!(decoder.at_boundary());
        assert_eq!(out, bytes);
    }
}

//! Writes of HTTP/2 put together: what is small waits for what comes next, until
//! the flush.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A write below this waits.
const SMALL: usize = 2 * 1024;
/// So much may wait.
const MOST: usize = 16 * 1024;

/// A byte stream under HTTP/2. It says that it cannot write vectored, so that h2
/// copies frames below 1 KiB together instead of sending each by itself, and
/// then joins the head of a larger frame with its bytes in one vectored write.
/// Holds 16 KiB at most, and nothing after a flush.
#[derive(Debug)]
pub(crate) struct Coalesce<T> {
    io: T,
    waiting: BytesMut,
}

impl<T> Coalesce<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, waiting: BytesMut::new() }
    }
}

impl<T: AsyncWrite + Unpin> Coalesce<T> {
    /// Writes what waits and then `buf`; gives how much of `buf` was written,
    /// which is none only when there is none.
    fn poll_out(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        while !self.waiting.is_empty() {
            let io = Pin::new(&mut self.io);
            // A plain write is the cheaper call.
            let written = if buf.is_empty() {
                ready!(io.poll_write(cx, &self.waiting))?
            } else {
                let both = [IoSlice::new(&self.waiting), IoSlice::new(buf)];
                ready!(io.poll_write_vectored(cx, &both))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_waiting = written.min(self.waiting.len());
            self.waiting.advance(of_waiting);
            if written > of_waiting {
                return Poll::Ready(Ok(written - of_waiting));
            }
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesce<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesce<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.len() < SMALL && self.waiting.len() + buf.len() <= MOST {
            self.waiting.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_out(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx, &[]))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx, &[]))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Takes a few bytes at a time, and counts the writes.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
        writes: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.as_mut().poll_write_vectored(cx, &[IoSlice::new(buf)])
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.writes += 1;
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            let count = all.len().min(self.room);
            self.taken.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_head_and_its_bytes_leave_together_in_order() {
        for room in [1, 7, 9, 100, 5000, 1 << 20] {
            let narrow = Narrow { taken: Vec::new(), room, writes: 0 };
            let mut io = Coalesce::new(narrow);
            let mut sent = Vec::new();
            for (at, length) in [9, 3000, 9, 9, 100, 2048, 20_000, 1].into_iter().enumerate() {
                let piece = vec![u8::try_from(at).unwrap(); length];
                io.write_all(&piece).await.unwrap();
                sent.extend_from_slice(&piece);
            }
            assert!(io.io.taken.len() < sent.len(), "the last one waits");
            io.flush().await.unwrap();
            assert!(io.io.taken == sent, "{room}");
            if room > sent.len() {
                assert_eq!(io.io.writes, 4, "each large one with what came before, then the rest");
            }
        }
    }

    #[tokio::test]
    async fn nothing_waits_behind_a_shutdown() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut io = Coalesce::new(near);
        io.write_all(b"bye").await.unwrap();
        io.shutdown().await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"bye");
    }
}

//! Whether the peer of a connection is still there: any byte is life; only
//! silence is asked about.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// When something was last read: milliseconds since the connection began.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    began: Instant,
    at: Arc<AtomicU64>,
}

impl Heard {
    fn now(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.at.load(Ordering::Relaxed))
    }
}

/// A byte stream that notes when it gave something.
pub(super) struct Listening<T> {
    io: T,
    heard: Heard,
}

impl<T> Listening<T> {
    pub(super) fn new(io: T) -> (Self, Heard) {
        let heard = Heard { began: Instant::now(), at: Arc::default() };
        (Self { io, heard: heard.clone() }, heard)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.heard.now();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Ends once the peer is taken for dead: it was silent for the interval, was
/// asked, and was silent for the timeout. Asks nobody who speaks.
pub(super) async fn dead(
    heard: Heard,
    ping: Option<PingPong>,
    interval: Duration,
    timeout: Duration,
) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        let quiet = heard.last() + interval;
        if Instant::now() < quiet {
            sleep_until(quiet).await;
            continue;
        }
        let asked = Instant::now();
        // Where an answer is still out, it is as good as one to a new ping.
        let _ = ping.send_ping(Ping::opaque());
        let answer = std::future::poll_fn(|cx| ping.poll_pong(cx));
        let answered = tokio::time::timeout_at(asked + timeout, answer).await;
        // A connection that broke is told of by itself.
        if answered.is_err() && heard.last() < asked {
            return;
        }
        if matches!(answered, Ok(Err(_))) {
            return std::future::pending().await;
        }
    }
}

//! A socket of a host's program as a tunnelled connection: it counts until
//! both halves are gone, and one that is given up is reset where the socket
//! can be.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use wolfpack_tunnel::TargetStream;

/// When a program that says nothing is asked whether it is there, and how often.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 3;

/// A place among the connections; held by both halves.
pub(super) type Share = Arc<OwnedSemaphorePermit>;

pub(super) fn unix(socket: UnixStream, share: Share) -> TargetStream {
    let (reader, writer) = socket.into_split();
    TargetStream::new(Held(reader, share.clone()), Held(writer, share))
}

pub(super) fn tcp(socket: TcpStream, share: Share) -> TargetStream {
    if let Err(error) = tune(&socket) {
        tracing::debug!(%error, "a socket of a host's program cannot be tuned");
    }
    let (reader, writer) = halves(socket, share);
    TargetStream::new(reader, writer)
}

/// The halves of a TCP connection; see [`Resetting`].
pub(super) fn halves(
    socket: TcpStream,
    share: Share,
) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static) {
    let (reader, writer) = socket.into_split();
    let writer = Resetting { half: Some(writer), finished: false };
    (Held(reader, share.clone()), Held(writer, share))
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE)?;
    Ok(sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?)
}

/// Something that holds a share.
struct Held<T>(T, #[allow(dead_code, reason = "it is held, not used")] Share);

impl<T: AsyncRead + Unpin> AsyncRead for Held<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Held<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The writing half of a TCP socket. Dropped without a shutdown it resets the
/// connection: an upload that was cut must not look like one that ended.
struct Resetting {
    half: Option<OwnedWriteHalf>,
    finished: bool,
}

impl Resetting {
    fn half(&mut self) -> io::Result<Pin<&mut OwnedWriteHalf>> {
        self.half.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        let Some(half) = self.half.take() else { return };
        if !self.finished && half.as_ref().set_zero_linger().is_ok() {
            // It goes with the reading half, without a farewell.
            half.forget();
        }
    }
}

impl AsyncWrite for Resetting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.half()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.half()?.poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        self.half()?.poll_shutdown(cx)
    }
}

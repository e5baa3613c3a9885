//! A connected socket as a tunnelled connection: what it holds is held until
//! both halves are gone, and one that is given up is reset where the socket
//! can be.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};

use super::target::TargetStream;

impl TargetStream {
    /// A TCP connection: small writes leave at once, a peer that is gone is
    /// found within two minutes, and dropping it without a shutdown resets it.
    /// `held` lives as long as a half of it does.
    #[must_use]
    pub fn tcp<H: Send + Sync + 'static>(socket: TcpStream, held: Arc<H>) -> Self {
        wolfpack_rpc::server::tune_raw(&socket);
        let (reader, writer) = halves(socket);
        Self::new(Held(reader, held.clone()), Held(writer, held))
    }

    /// A connection of a unix socket; `held` as in [`TargetStream::tcp`].
    #[must_use]
    pub fn unix<H: Send + Sync + 'static>(socket: UnixStream, held: Arc<H>) -> Self {
        let (reader, writer) = socket.into_split();
        Self::new(Held(reader, held.clone()), Held(writer, held))
    }
}

fn halves(socket: TcpStream) -> (OwnedReadHalf, Resetting) {
    let (reader, writer) = socket.into_split();
    (reader, Resetting { half: Some(writer), finished: false, fresh: true })
}

/// Something that holds something.
struct Held<T, H>(T, #[allow(dead_code, reason = "it is held, not used")] Arc<H>);

impl<T: AsyncRead + Unpin, H> AsyncRead for Held<T, H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl<T: AsyncWrite + Unpin, H> AsyncWrite for Held<T, H> {
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
    /// Nothing was written yet.
    fresh: bool,
}

impl Resetting {
    fn half(&mut self) -> io::Result<Pin<&mut OwnedWriteHalf>> {
        self.half.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The first write, past the runtime: that takes a socket for one that is full
    /// until it has asked the kernel, a turn of everybody's later. `None` where it
    /// has to wait after all.
    fn write_at_once(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        if !std::mem::take(&mut self.fresh) || bytes.is_empty() {
            return None;
        }
        let socket: &TcpStream = self.half.as_ref()?.as_ref();
        match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => Some(Ok(written)),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => Some(Err(error.into())),
        }
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
        if let Some(written) = self.write_at_once(bytes) {
            return Poll::Ready(written);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_connection_that_is_given_up_is_reset_and_one_that_ends_is_not() {
        for given_up in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            let held = Arc::new(());
            let TargetStream { reader, mut writer } = TargetStream::tcp(near, held.clone());
            writer.write_all(b"half").await.unwrap();
            if !given_up {
                writer.shutdown().await.unwrap();
            }
            drop(writer);
            assert_eq!(Arc::strong_count(&held), 2, "the other half holds it");
            drop(reader);
            assert_eq!(Arc::strong_count(&held), 1);
            let mut read = Vec::new();
            let end = far.read_to_end(&mut read).await;
            assert_eq!(end.is_err(), given_up, "{end:?} after {read:?}");
        }
    }

    #[tokio::test]
    async fn it_is_tuned_for_the_bytes_of_programs() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let seen = near.try_clone().unwrap();
        assert!(!seen.nodelay().unwrap(), "or this test shows nothing");
        let _stream = TargetStream::tcp(TcpStream::from_std(near).unwrap(), Arc::new(()));
        assert!(seen.nodelay().unwrap());
        let unsent = socket2::SockRef::from(&seen).tcp_notsent_lowat().unwrap();
        assert!(unsent < 1 << 20, "the kernel may hold {unsent} bytes for who stops");
    }
}

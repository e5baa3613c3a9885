//! The socket of a caller as the task sees it that writes to it: lent out, as
//! something else waits meanwhile for it to break.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;
use wolfpack_types::Fault;

use super::link::{Direction, LINGER, Link};
use super::relay::caller_left;

/// Resolves when the socket broke, whether anybody reads or writes it or not:
/// one whose reader waits for the rate of its tunnel, or for a target that takes
/// nothing, would not be looked at. A client that had finished before it left
/// has sent all it will, and that may only be on its way: the agent has a minute
/// to take it, unless a write finds before that nobody is there.
///
/// To be polled rarely: each poll takes a lock of the socket.
pub(super) async fn left(link: &Link, socket: &TcpStream) -> Fault {
    let ready = socket.ready(Interest::ERROR).await;
    // Whoever reads it next would find an end.
    link.doubt(true);
    let error = ready.and_then(|_| socket.take_error()).unwrap_or_else(Some);
    let finished = error.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if finished || link.way(Direction::Up).ended {
        link.doubt(false);
        tokio::time::sleep(LINGER).await;
    }
    match error {
        Some(error) => caller_left().caused_by(error),
        // Whoever reads or writes it was told first.
        None => caller_left(),
    }
}

/// Writes to a socket that is only lent. `tokio`'s own halves want it for
/// themselves; this makes the same system calls, and no more.
pub(super) struct Lent<'a>(pub(super) &'a TcpStream);

impl AsyncWrite for Lent<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            let mut sent = 0;
            let all = self.0.try_io(Interest::WRITABLE, || {
                sent = rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?;
                // A socket that took a part is full, and need not be asked whether
                // it takes the rest.
                if sent < bytes.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match all {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                Err(_) if sent == 0 => {}
                _ => return Poll::Ready(Ok(sent)),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(self.0).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_breaks_has_left_at_once_and_one_that_had_finished_later() {
        for finished in [false, true] {
            let (socket, mut client) = pair().await;
            let link = Link::new(std::sync::Arc::default(), |_| {});
            // What nobody reads.
            client.write_all(b"words").await.unwrap();
            if finished {
                client.shutdown().await.unwrap();
                // It has arrived.
                while socket.peek(&mut [0; 8]).await.unwrap() < 5 {}
            }
            client.set_zero_linger().unwrap();
            drop(client);
            let began = Instant::now();
            let fault = left(&link, &socket).await;
            assert_eq!(fault.reason, wolfpack_types::Reason::Cancelled);
            assert_eq!(began.elapsed() >= LINGER, finished, "{:?}", began.elapsed());
        }
    }

    #[tokio::test]
    async fn a_client_that_only_finishes_has_not_left() {
        let (socket, mut client) = pair().await;
        let link = Link::new(std::sync::Arc::default(), |_| {});
        client.shutdown().await.unwrap();
        assert_eq!(socket.peek(&mut [0]).await.unwrap(), 0, "its end has come");
        let waited = std::time::Duration::from_millis(100);
        assert!(tokio::time::timeout(waited, left(&link, &socket)).await.is_err());
    }

    #[tokio::test]
    async fn a_lent_socket_takes_all_in_pieces_of_any_size() {
        let (socket, mut far) = pair().await;
        let reads = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        // More than a socket takes at once.
        let sent: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 251) as u8).collect();
        let (first, rest) = sent.split_at(4_000_000);
        let (second, third) = rest.split_at(1_000);
        let mut writer = Lent(&socket);
        writer.write_all(first).await.unwrap();
        let mut pieces = bytes::Buf::chain(second, third);
        writer.write_all_buf(&mut pieces).await.unwrap();
        writer.flush().await.unwrap();
        writer.shutdown().await.unwrap();
        assert!(reads.await.unwrap() == sent);
    }
}

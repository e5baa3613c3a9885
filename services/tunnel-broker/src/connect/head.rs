//! The first bytes of a connection, which travel with the dial.

use std::future::pending;
use std::io;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::TcpStream;
use wolfpack_tunnel::protocol::MAX_EARLY_DATA;
use wolfpack_types::{Fault, Reason};

/// Room for one read.
const READ: usize = 4 * 1024;

/// What a caller has sent before its target was reached. All of it is kept, for a
/// dial that is tried again before any of it left: 16 KiB at most.
pub(crate) struct Head<'a> {
    bytes: BytesMut,
    socket: Option<&'a mut TcpStream>,
    /// The socket was read to its end.
    ended: bool,
}

impl<'a> Head<'a> {
    /// Bytes that the caller gave with its dial, and no more.
    pub(crate) fn given(bytes: &[u8]) -> Self {
        Self { bytes: BytesMut::from(bytes), socket: None, ended: false }
    }

    /// What a socket sends meanwhile.
    pub(crate) fn of(socket: &'a mut TcpStream) -> Self {
        Self { bytes: BytesMut::new(), socket: Some(socket), ended: false }
    }

    /// Whether there is nothing so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What there is so far.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    /// Takes what has come already, without waiting: most clients speak at once,
    /// and then their first bytes travel in the message that opens the connection.
    ///
    /// # Errors
    /// `CANCELLED` when the socket broke.
    pub(crate) fn present(&mut self) -> Result<(), Fault> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let mut piece = [0; READ];
        // Past tokio, which takes a fresh socket for one that has nothing.
        match rustix::net::recv(&**socket, &mut piece[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => self.bytes.extend_from_slice(&piece[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(left(error.into())),
        }
        Ok(())
    }

    /// Waits until the caller's socket breaks, and keeps what comes meanwhile.
    /// Cancelling it loses nothing.
    pub(crate) async fn broken(&mut self) -> Fault {
        loop {
            if let Err(fault) = self.more().await {
                return fault;
            }
        }
    }

    /// Waits for more; when there will be none, or no more may be taken, only for
    /// the socket to break. Cancelling it loses nothing.
    ///
    /// # Errors
    /// `CANCELLED` when the socket broke.
    pub(crate) async fn more(&mut self) -> Result<&[u8], Fault> {
        let Some(socket) = &mut self.socket else { return pending().await };
        let (present, room) = (self.bytes.len(), MAX_EARLY_DATA - self.bytes.len());
        if !self.ended && room > 0 {
            let mut piece = BytesMut::with_capacity(READ.min(room));
            match socket.read_buf(&mut piece).await {
                // The end is found again by whoever reads the socket next.
                Ok(0) => self.ended = true,
                Ok(_) => {
                    piece.truncate(room);
                    self.bytes.extend_from_slice(&piece);
                    return Ok(&self.bytes[present..]);
                }
                Err(error) => return Err(left(error)),
            }
        }
        let ready = socket.ready(Interest::ERROR).await;
        let error = ready.and_then(|_| socket.take_error()).unwrap_or_else(Some);
        Err(left(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())))
    }
}

fn left(error: io::Error) -> Fault {
    Fault::new(Reason::Cancelled, "the caller went away").caused_by(error)
}

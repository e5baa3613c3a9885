//! The first bytes of a connection, which travel with the dial.

use std::future::pending;
use std::io;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use wolfpack_tunnel::protocol::MAX_EARLY_DATA;
use wolfpack_types::{Fault, Reason};

/// Room for one read.
const READ: usize = 4 * 1024;

/// What a caller has sent before its target was reached. All of it is kept, so
/// that a dial that is tried again brings it again: 16 KiB at most.
pub(crate) struct Head<'a> {
    bytes: BytesMut,
    socket: Option<&'a mut TcpStream>,
}

impl<'a> Head<'a> {
    /// Bytes that the caller gave with its dial, and no more.
    pub(crate) fn given(bytes: &[u8]) -> Self {
        Self { bytes: BytesMut::from(bytes), socket: None }
    }

    /// What a socket sends meanwhile.
    pub(crate) fn of(socket: &'a mut TcpStream) -> Self {
        Self { bytes: BytesMut::new(), socket: Some(socket) }
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

    /// Waits for more; for ever when there will be none, or no more may be taken.
    /// Cancelling it loses nothing.
    ///
    /// # Errors
    /// `CANCELLED` when the socket broke.
    pub(crate) async fn more(&mut self) -> Result<&[u8], Fault> {
        let (Some(socket), room) = (&mut self.socket, MAX_EARLY_DATA - self.bytes.len()) else {
            return pending().await;
        };
        if room == 0 {
            return pending().await;
        }
        let present = self.bytes.len();
        let mut piece = BytesMut::with_capacity(READ.min(room));
        let read = socket.read_buf(&mut piece).await;
        match read {
            // The end is found again by whoever reads the socket next.
            Ok(0) => {
                self.socket = None;
                pending().await
            }
            Ok(_) => {
                piece.truncate(room);
                self.bytes.extend_from_slice(&piece);
                Ok(&self.bytes[present..])
            }
            Err(error) => Err(left(error)),
        }
    }
}

fn left(error: io::Error) -> Fault {
    Fault::new(Reason::Cancelled, "the caller went away").caused_by(error)
}

//! Connections an agent serves in its own process, without a socket between.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;
use tonic::transport::server::Connected;

use super::target::TunnelPeer;
use crate::stream::{ByteStream, byte_stream_io};

/// Accepted connections that wait for the program; more are refused.
pub(super) const BACKLOG: usize = 64;

/// One connection at the agent's end.
///
/// `shutdown` half-closes; dropping it without one resets the connection, and
/// the caller sees an error, not an end.
#[derive(Debug)]
pub struct TunnelIo {
    stream: ByteStream,
    peer: TunnelPeer,
}

impl TunnelIo {
    pub(super) fn new(stream: ByteStream, peer: TunnelPeer) -> Self {
        Self { stream, peer }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &TunnelPeer {
        &self.peer
    }
}

byte_stream_io!(TunnelIo);

impl Connected for TunnelIo {
    type ConnectInfo = TunnelPeer;

    fn connect_info(&self) -> TunnelPeer {
        self.peer.clone()
    }
}

/// Gives the connections to one target, in the order they came; also a stream
/// for tonic's `serve_with_incoming`. Dropping it makes the target unreachable.
#[derive(Debug)]
pub struct TunnelListener {
    accepted: mpsc::Receiver<TunnelIo>,
}

impl TunnelListener {
    pub(super) fn new(accepted: mpsc::Receiver<TunnelIo>) -> Self {
        Self { accepted }
    }

    /// The next connection; `None` once the tunnel has stopped. Cancelling it
    /// loses nothing.
    pub async fn accept(&mut self) -> Option<TunnelIo> {
        self.accepted.recv().await
    }
}

impl Stream for TunnelListener {
    type Item = std::io::Result<TunnelIo>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(cx).map(|io| io.map(Ok))
    }
}

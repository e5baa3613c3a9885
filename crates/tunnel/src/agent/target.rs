//! What an agent dials for a connection.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use wolfpack_types::{Fault, Target};

/// Who is at the other end of a connection, as the broker verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPeer {
    /// `services/{name}`, `users/{id}`, `links/{sandbox}:{port}` or `exposures/{id}`.
    pub caller: String,
    /// The connection, for logs.
    pub connection_id: String,
    /// W3C trace context of the connection; empty for none.
    pub traceparent: String,
    /// What was dialed.
    pub target: String,
}

/// A connected socket, in two halves so that both directions run at once.
pub struct TargetStream {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl std::fmt::Debug for TargetStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetStream")
    }
}

impl TargetStream {
    /// Halves that belong to one socket. Shutting the writer down must
    /// half-close the socket.
    #[must_use]
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: Box::new(reader), writer: Box::new(writer) }
    }
}

impl From<UnixStream> for TargetStream {
    fn from(socket: UnixStream) -> Self {
        let (reader, writer) = socket.into_split();
        Self::new(reader, writer)
    }
}

/// Connects the targets of one family, or one target, of an agent. It decides
/// by its own knowledge what may be reached; the broker's word is not enough.
#[async_trait]
pub trait TargetDialer: Send + Sync + 'static {
    /// Connects `target` for `peer`. The caller bounds the time and drops the
    /// future when it is over.
    ///
    /// # Errors
    /// `TARGET_FORBIDDEN` for a target it never serves, `TARGET_UNREACHABLE`
    /// for one that does not answer.
    async fn dial(&self, target: &Target, peer: &TunnelPeer) -> Result<TargetStream, Fault>;
}

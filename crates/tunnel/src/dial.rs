//! How a connection to a target is got, whoever opens it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use wolfpack_rpc::client::Bearer;
use wolfpack_types::{Endpoint, Fault, Target};

use crate::dialer::{Dialer, TunnelStream};

/// What is dialed, and for whom.
#[derive(Clone)]
pub struct Destination {
    /// The agent at the far end of the tunnel.
    pub endpoint: Endpoint,
    /// What it is asked to dial.
    pub target: Target,
    /// How long to wait for an endpoint that is away and for the target.
    pub timeout: Duration,
    /// First bytes, at most 16 KiB, that reach the target with the connection.
    pub early_data: Bytes,
    /// The credential of whom it is for. Who dials for others passes on theirs:
    /// the broker decides by it. `None` to dial as oneself.
    pub credential: Option<Bearer>,
}

/// Opens connections to targets. A gateway that is apart from the broker dials
/// by gRPC ([`Dialer`]); one in its process may be handed the stream itself.
pub trait Dial: Send + Sync + 'static {
    /// The bytes both ways, as [`TunnelStream`] describes them: `shutdown`
    /// half-closes, a connection that breaks is an error around a [`Fault`] and
    /// never an end of file.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a connection. Dropping the future takes the dial back.
    ///
    /// # Errors
    /// Those of `DialService.Dial`; of the credential `API_KEY_INVALID` and the
    /// like; `REQUEST_INVALID` for too much early data.
    fn dial(&self, to: Destination) -> impl Future<Output = Result<Self::Stream, Fault>> + Send;
}

impl Dial for Dialer {
    type Stream = TunnelStream;

    async fn dial(&self, to: Destination) -> Result<TunnelStream, Fault> {
        let Destination { endpoint, target, timeout, early_data, credential } = to;
        match credential {
            None => self.dial_with(&endpoint, &target, timeout, early_data).await,
            Some(credential) => {
                let theirs = self.with_bearer(credential);
                theirs.dial_with(&endpoint, &target, timeout, early_data).await
            }
        }
    }
}

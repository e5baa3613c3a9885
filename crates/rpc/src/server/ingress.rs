//! Requests that are for something behind the server, and none of its own.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;

use super::shared::Peer;

/// Answers requests that are for something behind the server, such as those for
/// another host name. It is asked before anything else looks at a request,
/// its path included, so that what it takes never meets a route, a service, the
/// policy or a layer of the server: it authenticates, bounds and counts for
/// itself. The limits of the connection apply to it as to all.
///
/// On HTTP/2 a listener with an ingress takes extended CONNECT (RFC 8441). A
/// CONNECT that the ingress does not take is refused.
pub trait Ingress: Send + Sync + 'static {
    /// Takes a request, or gives it back as the server's own. Dropping the
    /// answer, which happens when the client goes away, must end its work.
    ///
    /// # Errors
    /// The request itself, untouched, when it is the server's own.
    #[allow(clippy::result_large_err, reason = "it is the request, passed on by value")]
    fn take(
        &self,
        request: Request<Incoming>,
        peer: &Arc<Peer>,
    ) -> Result<BoxFuture<'static, Response<Body>>, Request<Incoming>>;
}

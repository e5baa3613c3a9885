//! A call on its way to a service behind.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Version, header};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use wolfpack_rpc::auth::Authority;
use wolfpack_rpc::error::to_status;
use wolfpack_rpc::forward::Forward;
use wolfpack_types::{Fault, Principal, Reason};

use crate::routes::WITHOUT_CREDENTIAL;

/// Forwards what has a credential, or needs none.
#[derive(Clone)]
pub(crate) struct Proxy {
    forward: Forward,
}

impl Proxy {
    pub(crate) fn new(forward: Forward) -> Self {
        Self { forward }
    }
}

impl Service<Request<Body>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.forward.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service behind sees the gateway's certificate. A call without a
        // credential would count as the gateway's own.
        let credential = request.headers().contains_key(header::AUTHORIZATION);
        if credential || WITHOUT_CREDENTIAL.contains(&request.uri().path()) {
            return self.forward.call(whole(request));
        }
        let response = to_status(credential_missing()).into_http();
        Box::pin(async move { Ok(response) })
    }
}

/// A request whose body says when it was cut off.
fn whole(request: Request<Body>) -> Request<Body> {
    if request.version() != Version::HTTP_2 {
        return request;
    }
    request.map(|inner| Body::new(Whole { inner }))
}

/// A stream that is cancelled must not arrive as one that has ended: tonic
/// takes a CANCELLED request stream for its end, and half an upload for all of
/// it. So a request that breaks off goes on as a reset with another code, and
/// an end is believed only when it was really sent.
struct Whole {
    inner: Body,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Without the transport's own error as its source, which names the code.
        let broken = || Some(Err(Status::aborted("the request broke off before its end")));
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(_)) => broken(),
            None if !self.inner.is_end_stream() => broken(),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// Also said over HTTP.
pub(crate) fn credential_missing() -> Fault {
    Fault::new(
        Reason::CredentialMissing,
        "send an api key as \"authorization: Bearer wp_...\"; an admin of the project can make one",
    )
}

/// Takes every credential as it is: whether it is good is for the service
/// behind to say. Nobody is anybody here.
pub(crate) struct PassOn;

#[async_trait]
impl Authority for PassOn {
    async fn api_key(&self, _key: &str) -> Result<Principal, Fault> {
        Ok(Principal::Anonymous)
    }

    async fn sandbox_token(&self, _token: &str) -> Result<Principal, Fault> {
        Ok(Principal::Anonymous)
    }
}

//! A call on its way to a service behind.

use std::convert::Infallible;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::{Request, Response, header};
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
            return self.forward.call(request);
        }
        let response = to_status(credential_missing()).into_http();
        Box::pin(async move { Ok(response) })
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

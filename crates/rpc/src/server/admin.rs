//! Plain HTTP for scrapers and probes: `/metrics` and `/healthz`. It has no
//! TLS and asks nobody who they are, so it belongs on a loopback or an
//! operator's address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;
use tower::service_fn;
use wolfpack_runtime::{BoxError, Context, Telemetry};
use wolfpack_types::{Fault, Principal, Reason};

use super::{BoundListener, HealthHandle, ListenConfig, ListenError, Profile, Server};
use crate::auth::Authority;

/// The operator's listener of a service.
pub struct Admin {
    listener: BoundListener,
}

impl Admin {
    /// Takes the address.
    ///
    /// # Errors
    /// When it is not to be had.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        Ok(Self { listener: ListenConfig::plain(address).bind().await? })
    }

    /// The address, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves until the supervisor stops.
    ///
    /// # Errors
    /// As [`Server::serve`].
    pub async fn serve(self, context: &Context, health: HealthHandle) -> Result<(), BoxError> {
        let telemetry = context.telemetry.clone();
        let answer = service_fn(move |request: Request<Body>| {
            let response = answer(&request, &telemetry, &health);
            async move { Ok::<_, Infallible>(response) }
        });
        Server::builder(context, &[], Arc::new(Nobody))
            .fallback(answer)
            .listen(self.listener, Profile::admin())
            .build()
            .serve()
            .await
    }
}

fn answer(
    request: &Request<Body>,
    telemetry: &Telemetry,
    health: &HealthHandle,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, telemetry.prometheus());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        "/healthz" if health.is_serving() => text(StatusCode::OK, "ok\n".to_owned()),
        "/healthz" => {
            let held_back = health.held_back_by().join(", ");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("not serving: {held_back}\n"))
        }
        _ => text(StatusCode::NOT_FOUND, "there is /metrics and /healthz\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Nobody is known here.
struct Nobody;

#[async_trait]
impl Authority for Nobody {
    async fn api_key(&self, _key: &str) -> Result<Principal, Fault> {
        Err(Fault::new(
            Reason::ApiKeyInvalid,
            "this listener takes no keys; call the service's own address",
        ))
    }

    async fn sandbox_token(&self, _token: &str) -> Result<Principal, Fault> {
        Err(Fault::new(
            Reason::SandboxTokenInvalid,
            "this listener takes no tokens; call the service's own address",
        ))
    }
}

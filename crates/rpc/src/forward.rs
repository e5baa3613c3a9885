//! Passing a call on to another service as it came: both directions stream,
//! trailers stay, nothing is decoded.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tower_service::Service;
use wolfpack_types::Principal;

use crate::auth::ON_BEHALF_OF;
use crate::client::RpcChannel;
use crate::request::Caller;
use crate::timeout;

/// Headers that are about one connection and not about the call.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::TRAILER,
];

/// Our own headers are never taken from outside.
const OURS: &str = "wolfpack-";

/// A tower service that forwards to one channel. `authorization` goes on, so
/// that the service behind authenticates the caller for itself; the time left
/// goes on as the deadline.
#[derive(Clone)]
pub struct Forward {
    channel: RpcChannel,
    speak_for_wolves: bool,
}

impl Forward {
    /// Forwards to a channel.
    #[must_use]
    pub fn to(channel: &RpcChannel) -> Self {
        // The call's own deadline bounds it, not the channel's default.
        Self { channel: channel.without_deadline(), speak_for_wolves: false }
    }

    /// Tells the service behind which wolf calls, when the caller is one. Only
    /// the tunnel broker is believed.
    #[must_use]
    pub fn on_behalf_of_wolves(mut self) -> Self {
        self.speak_for_wolves = true;
        self
    }

    fn prepare(&self, request: Request<Body>) -> Request<Body> {
        let (mut parts, body) = request.into_parts();
        let caller = parts.extensions.remove::<Caller>();
        clean(&mut parts.headers);
        if let Some(caller) = caller {
            if let Ok(id) = HeaderValue::from_str(&caller.request_id) {
                parts.headers.insert(crate::server::layers::trace::REQUEST_ID, id);
            }
            if let Some(deadline) = caller.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                parts.headers.insert(timeout::GRPC_TIMEOUT, timeout::write(left));
            }
            if let (true, Principal::Wolf(wolf)) = (self.speak_for_wolves, &caller.principal)
                && let Ok(name) = HeaderValue::from_str(&wolf.name())
            {
                parts.headers.insert(ON_BEHALF_OF, name);
            }
        }
        let mut forwarded = Request::new(body);
        *forwarded.method_mut() = parts.method;
        *forwarded.uri_mut() = parts.uri;
        *forwarded.headers_mut() = parts.headers;
        *forwarded.version_mut() = http::Version::HTTP_2;
        forwarded
    }
}

fn clean(headers: &mut HeaderMap) {
    // Connection may name more headers of the hop.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::TE)
        .collect();
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain(&ours) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

impl Service<Request<Body>> for Forward {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let request = self.prepare(request);
        let answer = self.channel.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(mut response) => {
                    clean(response.headers_mut());
                    *response.version_mut() = http::Version::HTTP_2;
                    Ok(response)
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::WolfId;

    #[tokio::test]
    async fn only_what_belongs_to_the_call_goes_on() {
        let channel = RpcChannel::over("nobody", || async {
            Err::<tokio::io::DuplexStream, _>(std::io::Error::from(
                std::io::ErrorKind::NotConnected,
            ))
        });
        let wolf = WolfId::new();
        let request = || {
            let mut request = Request::new(Body::empty());
            for (name, value) in [
                ("authorization", "Bearer wp_x"),
                ("te", "trailers"),
                ("grpc-accept-encoding", "identity"),
                ("connection", "x-hop, te"),
                ("x-hop", "1"),
                ("keep-alive", "1"),
                ("wolfpack-on-behalf-of", "wolves/forged"),
                ("wolfpack-else", "1"),
                ("grpc-timeout", "99999H"),
            ] {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            request.extensions_mut().insert(Caller {
                principal: Principal::Wolf(wolf.clone()),
                request_id: "id-1".into(),
                deadline: Some(Instant::now() + std::time::Duration::from_secs(5)),
            });
            request
        };
        let forwarded = Forward::to(&channel).prepare(request());
        let names: std::collections::BTreeSet<&str> =
            forwarded.headers().keys().map(HeaderName::as_str).collect();
        let wanted =
            ["authorization", "grpc-accept-encoding", "grpc-timeout", "te", "x-request-id"];
        assert_eq!(names.into_iter().collect::<Vec<_>>(), wanted);
        let left = timeout::read(forwarded.headers()).unwrap().unwrap();
        assert!(left <= std::time::Duration::from_secs(5), "{left:?}");

        let forwarded = Forward::to(&channel).on_behalf_of_wolves().prepare(request());
        assert_eq!(forwarded.headers()["wolfpack-on-behalf-of"], wolf.name());
    }
}

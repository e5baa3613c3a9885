//! From a request to plain bytes: WebSockets, by `Upgrade` on HTTP/1.1 or by
//! extended CONNECT on HTTP/2 (RFC 8441).

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tonic::body::Body;
use wolfpack_tunnel::Dial;
use wolfpack_types::{Fault, Reason};

use super::Inner;
use super::address::Form;
use super::admission::Place;
use super::{headers, hop};

/// Read at once in each direction.
const BUFFER: usize = 32 * 1024;
const WEBSOCKET: &str = "websocket";

/// What a client wants to go on with.
pub(super) struct Wish {
    client: OnUpgrade,
    /// For the target's `upgrade`.
    pub(super) protocol: HeaderValue,
    connect: bool,
}

/// The wish of a request, if it has one. An extended CONNECT becomes what an
/// HTTP/1.1 target knows.
///
/// # Errors
/// `ROUTE_NOT_FOUND` for any other CONNECT.
pub(super) fn wish(request: &mut Request<Incoming>) -> Result<Option<Wish>, Fault> {
    if request.method() == Method::CONNECT {
        let asked = request.extensions().get::<Protocol>().map(Protocol::as_str);
        if asked != Some(WEBSOCKET) {
            return Err(Fault::new(
                Reason::RouteNotFound,
                "CONNECT opens WebSockets here and nothing else",
            ));
        }
        let client = hyper::upgrade::on(&mut *request);
        *request.method_mut() = Method::GET;
        // The key is of no use in HTTP/2, so clients send none.
        let key = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            uuid::Uuid::new_v4().as_bytes(),
        );
        if let Ok(key) = HeaderValue::try_from(key) {
            request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
        }
        request.headers_mut().remove(CONTENT_LENGTH);
        let protocol = HeaderValue::from_static(WEBSOCKET);
        return Ok(Some(Wish { client, protocol, connect: true }));
    }
    // A body would have to be over before: such a request stays what it is.
    if request.version() != Version::HTTP_11 || !request.body().is_end_stream() {
        return Ok(None);
    }
    let Some(protocol) = hop::upgrade(request.headers()) else { return Ok(None) };
    let client = hyper::upgrade::on(&mut *request);
    Ok(Some(Wish { client, protocol, connect: false }))
}

impl Wish {
    /// Whether the request came as an extended CONNECT.
    pub(super) fn is_connect(&self) -> bool {
        self.connect
    }
}

/// Whether a request is meant to go on as something else.
pub(super) fn is_wished(parts: &Parts) -> bool {
    parts.method == Method::CONNECT || hop::upgrade(&parts.headers).is_some()
}

impl<D: Dial> Inner<D> {
    /// Carries bytes both ways after a target's `101`, each direction to its own
    /// end, until both have ended, one breaks, or the gateway stops.
    pub(super) fn go_on(
        &self,
        wish: Wish,
        mut response: Response<Incoming>,
        place: std::sync::Arc<Place>,
        form: Form,
    ) -> Response<Body> {
        let target = hyper::upgrade::on(&mut response);
        let client = wish.client;
        let (stop, open) = (self.supervisor.token(), self.metrics.upgraded());
        self.supervisor.spawn("gateway.ingress.upgraded", async move {
            let _held = (place, open);
            stop.run_until_cancelled(carry(client, target)).await;
        });
        let accepted: Vec<HeaderValue> = values(response.headers(), &UPGRADE);
        let mut answer = Response::new(Body::empty());
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        headers::to_client(answer.headers_mut(), form);
        if wish.connect {
            answer.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
            return answer;
        }
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        for protocol in accepted {
            answer.headers_mut().append(UPGRADE, protocol);
        }
        answer
    }
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}

async fn carry(client: OnUpgrade, target: OnUpgrade) {
    let Ok((client, target)) = tokio::try_join!(client, target) else { return };
    let io = |upgraded: Upgraded| TokioIo::new(upgraded);
    let (mut client, mut target) = (io(client), io(target));
    let carried =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut target, BUFFER, BUFFER).await;
    if let Err(error) = carried {
        tracing::debug!(%error, "an upgraded connection broke");
    }
}

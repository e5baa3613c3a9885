//! One request: who asks, on which connection, and the answer.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, EXPECT, ORIGIN, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use tonic::body::Body;
use wolfpack_rpc::server::Peer;
use wolfpack_tunnel::Dial;
use wolfpack_types::{Fault, Reason};

use super::address::Address;
use super::admission::Place;
use super::body::{Answered, Outgoing, Wanted};
use super::credential::{self, Credential, Via};
use super::pool::Lease;
use super::refusal::Refused;
use super::target::Way;
use super::{Inner, headers, link, upgrade};

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor {
    pub(super) ip: Option<IpAddr>,
    /// Whether TLS protects its connection.
    pub(super) encrypted: bool,
}

impl Visitor {
    pub(super) fn of(peer: &Peer) -> Self {
        let ip = peer.address.map(|address| address.ip().to_canonical());
        Self { ip, encrypted: peer.encrypted }
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.encrypted { "https" } else { "http" }
    }
}

impl<D: Dial> Inner<D> {
    /// Answers a request with what the target does.
    pub(super) async fn serve(
        &self,
        address: &Address,
        request: Request<Incoming>,
        visitor: &Visitor,
    ) -> Result<Response<Body>, Refused> {
        let (mut parts, body) = request.into_parts();
        let Parts { headers, uri, .. } = &mut parts;
        let credential = credential::take(headers, uri, address.form, visitor.encrypted)?;
        if credential.via == Via::Query && is_navigation(&parts) {
            let location = location(&parts, visitor);
            return Ok(self.take_link(address, &credential, &location, visitor).await?);
        }
        if credential.via == Via::Cookie {
            self.check_page(&parts, address)?;
        }
        let place = Arc::new(self.admission.take(&address.sandbox)?);
        let request = Request::from_parts(parts, body);
        let answer = self.pass_on(address, &credential, request, visitor, place).await;
        answer.map_err(|fault| Refused::with(fault, credential.via))
    }

    /// Answers a browser that came with a link: a cookie in its place, once the
    /// broker has let it in.
    async fn take_link(
        &self,
        address: &Address,
        credential: &Credential,
        location: &str,
        visitor: &Visitor,
    ) -> Result<Response<Body>, Fault> {
        // First what needs nobody else: most that are no good are just over.
        let answer = link::to_cookie(credential.as_str(), address, location, visitor.encrypted)?;
        let _place = self.admission.take(&address.sandbox)?;
        self.verify(&Way::of(credential, address)).await?;
        Ok(answer)
    }

    /// A cookie comes along with whatever page asks. What changes something, or
    /// goes on as a WebSocket, is for pages of the sandbox itself.
    fn check_page(&self, parts: &Parts, address: &Address) -> Result<(), Fault> {
        let reads = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if reads && !upgrade::is_wished(parts) {
            return Ok(());
        }
        let Some(origin) = parts.headers.get(ORIGIN) else { return Ok(()) };
        if self.domains.sandbox_of(origin.as_bytes()).as_ref() == Some(&address.sandbox) {
            return Ok(());
        }
        Err(Fault::new(
            Reason::CallerForbidden,
            "a page of another origin may not do this in your name; open it from the sandbox's own",
        ))
    }

    async fn pass_on(
        &self,
        address: &Address,
        credential: &Credential,
        mut request: Request<Incoming>,
        visitor: &Visitor,
        place: Arc<Place>,
    ) -> Result<Response<Body>, Fault> {
        let wish = upgrade::wish(&mut request)?;
        let version = request.version();
        let (mut parts, body) = request.into_parts();
        let protocol = wish.as_ref().map(|wish| wish.protocol.clone());
        headers::to_target(&mut parts.headers, &parts.uri, version, address, visitor, protocol);
        let body = if wish.is_some() {
            Outgoing::none()
        } else {
            Outgoing::of(body, version == Version::HTTP_2, Arc::clone(&place))
        };
        let (request, wanted) = outgoing(parts, body, address, version)?;
        let way = Way::of(credential, address);
        let (mut response, sender) = self.send(&way, request, wish.is_none()).await?;
        match (wish, response.status()) {
            (Some(wish), StatusCode::SWITCHING_PROTOCOLS) => {
                Ok(self.go_on(wish, response, place, address.form))
            }
            // To the client a good answer to CONNECT is an open connection.
            (Some(wish), status) if wish.is_connect() && status.is_success() => Err(not_asked()),
            (None, StatusCode::SWITCHING_PROTOCOLS) => Err(not_asked()),
            _ => {
                headers::to_client(response.headers_mut(), address.form);
                let body = response.body();
                if !body.is_end_stream() && body.size_hint().exact().is_none() {
                    // The chunks say how long it is, whatever else does.
                    response.headers_mut().remove(CONTENT_LENGTH);
                }
                *response.version_mut() = Version::HTTP_11;
                // One that may still wait for its body is never used again.
                let lease =
                    wanted.is_none().then(|| Lease::new(&self.pool, way.key.clone(), sender));
                Ok(response.map(|body| Body::new(Answered::new(body, lease, place, wanted))))
            }
        }
    }
}

/// The request for the target, and what opens its body when that waits.
fn outgoing(
    parts: Parts,
    mut body: Outgoing,
    address: &Address,
    version: Version,
) -> Result<(Request<Outgoing>, Option<Arc<Wanted>>), Fault> {
    let unreadable = || Fault::new(Reason::RequestInvalid, "the path cannot be read; check it");
    let path = address.path(&parts.uri).ok_or_else(unreadable)?;
    let empty = body.is_end_stream();
    // HTTP/2 has no such question: what comes is sent on.
    let asks = !empty
        && version == Version::HTTP_11
        && parts
            .headers
            .get(EXPECT)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let wanted = asks.then(|| body.when_wanted());
    let chunked = !empty && !parts.headers.contains_key(CONTENT_LENGTH);
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.headers_mut() = parts.headers;
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    if chunked {
        // Said here, or the body of a GET would be left out.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if empty && headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        // No target may wait for what does not come: the next request would be it.
        headers.remove(CONTENT_LENGTH);
    }
    if let Some(wanted) = wanted.clone() {
        hyper::ext::on_informational(&mut request, move |said| {
            if said.status() == StatusCode::CONTINUE {
                wanted.say();
            }
        });
    }
    Ok((request, wanted))
}

/// Whether a browser goes to an address, so that it may be sent on to another.
fn is_navigation(parts: &Parts) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD) && !upgrade::is_wished(parts)
}

/// Where the request went, without its link.
fn location(parts: &Parts, visitor: &Visitor) -> String {
    let named = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = named.or_else(|| parts.headers.get(http::header::HOST)?.to_str().ok());
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{}://{}{path}", visitor.scheme(), host.unwrap_or_default())
}

fn not_asked() -> Fault {
    Fault::new(
        Reason::ConnectionReset,
        "the program in the sandbox answered an upgrade in a way that was not asked for",
    )
}

//! What the ingress itself answers when the target does not: a page for browsers,
//! JSON for programs.

use std::sync::Arc;

use axum::response::IntoResponse as _;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use tonic::body::Body;
use wolfpack_rpc::server::request_id;
use wolfpack_types::{Fault, Reason};

use super::credential::Via;
use super::link;
use super::serve::Visitor;
use crate::http::error::HttpError;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Allowed by its hash, and nothing else is.
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:15vh auto;\
padding:0 1em;color:#222;background:#fff}h1{font-size:1.4em}code,small{color:#666}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code,small{color:#999}}";
const POLICY: &str = "default-src 'none'; style-src 'sha256-8klGdQwlUecZaTvl3KPLDKfCtE6I2d1Ed8TLJAomZZI='; base-uri 'none'; \
form-action 'none'; frame-ancestors 'none'";

/// How a client wants to be refused.
pub(super) struct Manner {
    page: bool,
    id: Option<HeaderValue>,
}

impl Manner {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        const PAGE: &[u8] = b"text/html";
        let accepts = headers.get_all(ACCEPT).iter().any(|value| {
            value.as_bytes().windows(PAGE.len()).any(|part| part.eq_ignore_ascii_case(PAGE))
        });
        Self { page: accepts, id: headers.get(REQUEST_ID).cloned() }
    }

    /// The client's own id, or a fresh one: only who is refused needs one.
    fn id(&self) -> Arc<str> {
        let mut headers = HeaderMap::new();
        if let Some(id) = &self.id {
            headers.insert(REQUEST_ID, id.clone());
        }
        request_id(&headers)
    }
}

/// A fault on its way to a client.
pub(super) struct Refused {
    fault: Fault,
    /// The cookie that it came with is of no use any more.
    forget: bool,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault, forget: false }
    }
}

impl Refused {
    /// A fault of a request with a credential that came this way.
    pub(super) fn with(fault: Fault, via: Via) -> Self {
        let forget = via == Via::Cookie && fault.reason == Reason::LinkInvalid;
        Self { fault, forget }
    }

    pub(super) fn response(self, manner: &Manner, visitor: &Visitor) -> Response<Body> {
        let Self { fault, forget } = self;
        let (status, id) = (status(fault.reason), manner.id());
        if status.is_server_error() {
            tracing::info!(request_id = &*id, reason = %fault.reason, cause = ?fault.source, "a request for a port was not served: {}", fault.message);
        } else {
            tracing::debug!(request_id = &*id, reason = %fault.reason, "a request for a port was refused");
        }
        let page = manner.page.then(|| page(&fault, status, &id).into_string());
        let error = HttpError::from(fault).with_status(status).with_request_id(&id);
        let mut response = error.into_response().map(Body::new);
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if forget && let Some(cookie) = link::forget(visitor.encrypted) {
            headers.append(SET_COOKIE, cookie);
        }
        if let Some(page) = page {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            headers.remove(http::header::CONTENT_LENGTH);
            *response.body_mut() = Body::new(http_body_util::Full::from(page));
        }
        response
    }
}

/// The status of a refusal. What lies between client and target is a gateway's to
/// tell.
fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::TargetUnreachable | Reason::ConnectionReset => StatusCode::BAD_GATEWAY,
        Reason::Overloaded | Reason::DialsLimited => StatusCode::SERVICE_UNAVAILABLE,
        other => crate::http::error::status(other.code()),
    }
}

fn page(fault: &Fault, status: StatusCode, id: &str) -> Markup {
    let title = match fault.reason {
        Reason::CredentialMissing => "This page needs a link",
        Reason::LinkInvalid => "This link does not work",
        Reason::ApiKeyInvalid => "This is no key that works here",
        Reason::EndpointNotFound => "There is no such sandbox, or it is not yours",
        Reason::TargetUnreachable => "Nothing answers there",
        Reason::DialTimeout | Reason::DeadlineExceeded => "It takes too long",
        _ => status.canonical_reason().unwrap_or("Something went wrong"),
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p { (fault.message) }
                p { small { (status.as_str()) " " code { (fault.reason.as_str()) } " · request " code { (id) } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_is_the_one_that_is_allowed() {
        let hash = ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes());
        let hash =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash.as_ref());
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
    }

    #[test]
    fn a_page_says_what_it_is_told_as_text() {
        let fault = Fault::new(Reason::TargetUnreachable, "<script>alert(1)</script> & more");
        let page = page(&fault, StatusCode::BAD_GATEWAY, "r-1").into_string();
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"), "{page}");
        assert!(!page.contains("<script"));
        assert!(page.contains("r-1") && page.contains("TARGET_UNREACHABLE"));
    }

    #[test]
    fn each_reason_has_the_status_of_a_gateway() {
        for (reason, expected) in [
            (Reason::CredentialMissing, 401),
            (Reason::LinkInvalid, 401),
            (Reason::RoleTooLow, 403),
            (Reason::EndpointNotFound, 404),
            (Reason::TargetUnreachable, 502),
            (Reason::ConnectionReset, 502),
            (Reason::TunnelLost, 503),
            (Reason::Overloaded, 503),
            (Reason::DialTimeout, 504),
            (Reason::RateLimited, 429),
        ] {
            assert_eq!(status(reason).as_u16(), expected, "{reason}");
        }
    }
}

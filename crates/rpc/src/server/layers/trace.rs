//! One span per call, in the caller's trace, and a request id that goes back.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request};
use tonic::body::Body;
use tracing::{Instrument as _, Span, field};
use wolfpack_runtime::trace_context;

use crate::policy::RpcKind;
use crate::server::body::{Watch, watch};
use crate::server::shared::{RequestId, route};
use crate::server::stack::{Answer, Handle, Next};

/// The header of the request id, both ways.
pub(crate) const REQUEST_ID: &str = "x-request-id";

pub(crate) struct Trace {
    pub(crate) next: Next,
}

impl Handle for Trace {
    fn handle(&self, mut request: Request<Body>) -> Answer {
        let route = route(&request);
        if route.kind() == RpcKind::Relay {
            return self.next.handle(request);
        }
        let id = request_id(request.headers());
        // A connection is no part of a call: its span, if any, is no parent.
        let span = tracing::info_span!(
            parent: None,
            "rpc.server",
            otel.name = route.label.trim_start_matches('/'),
            otel.kind = "server",
            otel.status_code = field::Empty,
            rpc.system.name = "grpc",
            rpc.method = route.label.trim_start_matches('/'),
            rpc.response.status_code = field::Empty,
            request_id = &*id,
            principal = field::Empty,
        );
        if let Some(parent) = request.headers().get("traceparent").and_then(|v| v.to_str().ok()) {
            trace_context::set_parent(&span, parent);
        }
        request.extensions_mut().insert(RequestId(Arc::clone(&id)));
        let answer = span.in_scope(|| self.next.handle(request));
        let inner = span.clone();
        Box::pin(
            async move {
                let mut response = answer.await;
                if let Ok(value) = HeaderValue::from_str(&id) {
                    response.headers_mut().insert(REQUEST_ID, value);
                }
                watch(response, route.grpc, Record { span })
            }
            .instrument(inner),
        )
    }
}

struct Record {
    span: Span,
}

impl Watch for Record {
    fn span(&self) -> Option<&Span> {
        Some(&self.span)
    }

    fn end(self, code: &'static str) {
        self.span.record("rpc.response.status_code", code);
        // Only these are the server's doing; the rest are answers.
        if matches!(
            code,
            "INTERNAL" | "UNKNOWN" | "DATA_LOSS" | "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "HTTP_5XX"
        ) {
            self.span.record("otel.status_code", "ERROR");
        }
        let _entered = self.span.enter();
        tracing::debug!(code, "call ended");
    }
}

/// The id of a request: the client's own when it is short and harmless in logs,
/// else a fresh one.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> Arc<str> {
    given(headers).unwrap_or_else(fresh)
}

/// The client's id, when it is short and harmless in logs.
fn given(headers: &HeaderMap) -> Option<Arc<str>> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let sane = (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/'));
    sane.then(|| Arc::from(id))
}

fn fresh() -> Arc<str> {
    let mut buffer = [0; uuid::fmt::Simple::LENGTH];
    Arc::from(&*uuid::Uuid::now_v7().simple().encode_lower(&mut buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_ids_are_replaced() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
            given(&headers)
        };
        assert_eq!(with("build-7/step.2").as_deref(), Some("build-7/step.2"));
        assert_eq!(with(""), None);
        assert_eq!(with(&"x".repeat(129)), None);
        assert_eq!(with("a b"), None);
        assert_eq!(with("a\tb"), None);
        assert_eq!(given(&HeaderMap::new()), None);
        assert_ne!(fresh(), fresh());
    }
}

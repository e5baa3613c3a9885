//! What comes back: errors as statuses with a reason, bodies that end with the
//! call's deadline.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;
use wolfpack_types::{Fault, Reason};

use super::connector::HandshakeError;
use crate::error::{to_status, to_status_again};
use crate::server::code_name;

/// In a fault's metadata: what was wrong with the peer's TLS.
pub const TLS: &str = "tls";
/// Its certificate leads to no root that is trusted; a pinned one included.
pub const UNKNOWN_ISSUER: &str = "UNKNOWN_ISSUER";
/// Its certificate is a CA's own, as that of a self-signed server often is.
pub const SELF_SIGNED: &str = "SELF_SIGNED";
/// Its certificate is for another name.
pub const NAME_DIFFERS: &str = "NAME_DIFFERS";
/// Its certificate has ended, or the clocks differ.
pub const CERTIFICATE_EXPIRED: &str = "CERTIFICATE_EXPIRED";
/// It does not speak TLS, or hangs up on it.
pub const NOT_TLS: &str = "NOT_TLS";

/// The deadline passed on our side.
pub(crate) fn exceeded(peer: &str) -> Status {
    to_status(Fault::new(
        Reason::DeadlineExceeded,
        format!("{peer} did not answer within the deadline; try again or allow more time"),
    ))
}

/// The bearer has characters that no header may have.
pub(crate) fn unusable_bearer(peer: &str) -> Status {
    to_status(Fault::new(
        Reason::CredentialMissing,
        format!(
            "the key or token for {peer} has characters that cannot be sent; check how it was copied"
        ),
    ))
}

/// Whether a peer was away at the last call: that is said when it begins, not
/// by every call that is tried again.
#[derive(Debug, Default)]
pub(crate) struct Outage(AtomicBool);

impl Outage {
    /// The peer answered.
    pub(crate) fn over(&self) {
        // A plain load first: every call comes by here.
        if self.0.load(Ordering::Relaxed) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    /// The peer did not; whether that is news.
    fn begins(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// The call did not get as far as an answer. One whose peer's TLS is at fault
/// says so in its metadata: [`TLS`].
pub(crate) fn failed(
    peer: &str,
    error: impl Into<Box<dyn Error + Send + Sync>>,
    outage: &Outage,
) -> Status {
    let error = error.into();
    let mut tls = None;
    let mut next: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(cause) = next {
        // A connector of ours knows better than the transport what went wrong.
        if let Some(fault) = cause.downcast_ref::<Fault>() {
            return if outage.begins() { to_status(fault.clone()) } else { to_status_again(fault) };
        }
        tls = tls.or_else(|| cause.downcast_ref::<HandshakeError>().and_then(HandshakeError::kind));
        next = cause.source();
    }
    let mut fault = lost(peer, error);
    if let Some(kind) = tls {
        fault = fault.with(TLS, kind);
    }
    if outage.begins() { to_status(fault) } else { to_status_again(&fault) }
}

fn lost(peer: &str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Fault {
    Fault::new(
        Reason::DependencyUnavailable,
        format!("{peer} cannot be reached or the connection to it broke; try again"),
    )
    .with("peer", peer)
    .retry_in(Duration::from_millis(500))
    .caused_by(cause)
}

/// Follows an answer to its end.
pub(crate) fn watch(
    answer: Result<Response<Body>, Status>,
    peer: Arc<str>,
    deadline: Option<Instant>,
    span: Span,
) -> Result<Response<Body>, Status> {
    let mut end = End { span, over: false };
    match answer {
        Err(status) => {
            end.over(name(&status));
            Err(status)
        }
        Ok(response) => {
            if let Some(code) = response.headers().get(Status::GRPC_STATUS) {
                end.over(code_name(code.as_bytes()));
                return Ok(response);
            }
            let timer = deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
            Ok(response.map(|inner| Body::new(Answer { inner: Some(inner), timer, peer, end })))
        }
    }
}

/// A response body that ends in time.
struct Answer {
    inner: Option<Body>,
    timer: Option<Pin<Box<Sleep>>>,
    peer: Arc<str>,
    end: End,
}

impl Answer {
    fn fail(&mut self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.inner = None;
        self.end.over(name(&status));
        Poll::Ready(Some(Err(status)))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if this.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            let status = exceeded(&this.peer);
            return this.fail(status);
        }
        match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(|t| t.get(Status::GRPC_STATUS)) {
                    this.end.over(code_name(code.as_bytes()));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            // The transport's words for a lost connection are many.
            Some(Err(status)) if status.code() != Code::Cancelled => {
                let status = to_status(lost(&this.peer, status));
                this.fail(status)
            }
            Some(Err(status)) => this.fail(status),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

/// Records the status of a call once, CANCELLED when nobody waited for it.
struct End {
    span: Span,
    over: bool,
}

impl End {
    fn over(&mut self, code: &'static str) {
        if self.over {
            return;
        }
        self.over = true;
        self.span.record("rpc.response.status_code", code);
        if code != "OK" && code != "CANCELLED" {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.over("CANCELLED");
    }
}

fn name(status: &Status) -> &'static str {
    code_name((status.code() as i32).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_news_once() {
        let outage = Outage::default();
        assert!(outage.begins());
        assert!(!outage.begins());
        outage.over();
        assert!(outage.begins());
    }
}

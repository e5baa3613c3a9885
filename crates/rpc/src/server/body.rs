//! Bodies and responses that the layers make.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::Full;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;
use wolfpack_types::Fault;

use super::metrics::code_name;
use super::shared::Route;
use crate::error::{complete, to_status};

/// A refusal, as gRPC or as plain HTTP for those who do not speak it.
pub(crate) fn refuse(route: &Route, fault: Fault) -> Response<Body> {
    if route.grpc {
        return to_status(fault).into_http();
    }
    let retry = fault.retry_after;
    let text = format!("{}: {}\n", fault.reason, fault.message);
    let status = to_status(fault);
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    *response.status_mut() = http_status(status.code());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(after) = retry {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}

/// The HTTP status of a code, as google.rpc.Code maps them.
pub(crate) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Internal | Code::Unknown | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A status as the last frame of a body.
pub(crate) fn trailers(status: &Status) -> Frame<Bytes> {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        headers.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
    }
    Frame::trailers(headers)
}

/// Hears how a call ended, once.
pub(crate) trait Watch: Send + Unpin + 'static {
    /// The span that the body's work belongs to.
    fn span(&self) -> Option<&Span> {
        None
    }
    /// The call is over.
    fn end(self, code: &'static str);
}

/// Reports the end of a call: at once when the headers say it, else at the
/// trailers, else when the peer goes away.
pub(crate) fn watch<W: Watch>(response: Response<Body>, grpc: bool, watch: W) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    complete(&mut parts.headers);
    if let Some(code) = parts.headers.get(Status::GRPC_STATUS) {
        watch.end(code_name(code.as_bytes()));
        return Response::from_parts(parts, body);
    }
    if !grpc && http_body::Body::is_end_stream(&body) {
        watch.end(http_class(parts.status));
        return Response::from_parts(parts, body);
    }
    let at_end = if grpc { "UNKNOWN" } else { http_class(parts.status) };
    Response::from_parts(parts, Body::new(Watched { inner: body, watch: Some(watch), at_end }))
}

/// What a layer keeps until a relay's last byte, in the extensions of its
/// response: one body holds it all, as each costs every frame its passage.
#[derive(Clone)]
pub(crate) struct Held(
    #[allow(dead_code, reason = "held until it is dropped")] Arc<dyn Any + Send + Sync>,
);

impl Held {
    pub(crate) fn new(what: impl Any + Send + Sync) -> Self {
        Self(Arc::new(what))
    }
}

/// As [`watch`] for a relay: reports its end and lets go of what is held.
pub(crate) fn relayed<W: Watch>(mut response: Response<Body>, watch: W) -> Response<Body> {
    let held = response.extensions_mut().remove::<Held>();
    let (mut parts, inner) = response.into_parts();
    complete(&mut parts.headers);
    if let Some(code) = parts.headers.get(Status::GRPC_STATUS) {
        watch.end(code_name(code.as_bytes()));
        return Response::from_parts(parts, inner);
    }
    let watched = Watched { inner, watch: Some(watch), at_end: "UNKNOWN" };
    Response::from_parts(parts, Body::new(Holding { inner: watched, _held: held }))
}

struct Holding<W: Watch> {
    inner: Watched<W>,
    _held: Option<Held>,
}

impl<W: Watch> http_body::Body for Holding<W> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

fn http_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        0..400 => "OK",
        400..500 => "HTTP_4XX",
        _ => "HTTP_5XX",
    }
}

struct Watched<W: Watch> {
    inner: Body,
    watch: Option<W>,
    /// What an end without trailers means.
    at_end: &'static str,
}

impl<W: Watch> Watched<W> {
    fn end(&mut self, code: &'static str) {
        if let Some(watch) = self.watch.take() {
            watch.end(code);
        }
    }
}

impl<W: Watch> http_body::Body for Watched<W> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = {
            let _entered = this.watch.as_ref().and_then(Watch::span).map(Span::enter);
            ready!(Pin::new(&mut this.inner).poll_frame(cx))
        };
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    complete(trailers);
                    let code = trailers
                        .get(Status::GRPC_STATUS)
                        .map_or(this.at_end, |c| code_name(c.as_bytes()));
                    this.end(code);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(status)) => {
                this.end(code_name((status.code() as i32).to_string().as_bytes()));
                Poll::Ready(Some(Err(status)))
            }
            None => {
                let at_end = this.at_end;
                this.end(at_end);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

impl<W: Watch> Drop for Watched<W> {
    fn drop(&mut self) {
        // Some bodies are never polled to their end: those whose length is
        // known (the end is then the last frame), and those that nobody reads.
        let code =
            if http_body::Body::is_end_stream(&self.inner) { self.at_end } else { "CANCELLED" };
        self.end(code);
    }
}

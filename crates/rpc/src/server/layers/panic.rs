//! A handler that panics answers INTERNAL; the server lives.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use http::Request;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use wolfpack_types::Fault;

use crate::error::to_status;
use crate::policy::RpcKind;
use crate::server::body::{refuse, trailers};
use crate::server::shared::{Route, Shared, route};
use crate::server::stack::{Answer, Handle, Next};

pub(crate) struct Catch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) next: Next,
}

impl Handle for Catch {
    fn handle(&self, request: Request<Body>) -> Answer {
        let route = route(&request);
        let shared = Arc::clone(&self.shared);
        let next = Arc::clone(&self.next);
        Box::pin(async move {
            // What a panicking handler shares with others is behind locks that
            // do not poison, or is its own.
            match AssertUnwindSafe(async move { next.handle(request).await }).catch_unwind().await {
                Ok(response)
                    if !route.grpc
                        // One that panics ends its own task, and with it its stream.
                        || route.kind() == RpcKind::Relay
                        || http_body::Body::is_end_stream(response.body()) =>
                {
                    response
                }
                Ok(response) => {
                    response.map(|inner| Body::new(Guarded { inner: Some(inner), shared, route }))
                }
                Err(_) => refuse(&route, panicked(&shared, &route)),
            }
        })
    }
}

/// The panic hook has logged what and where.
fn panicked(shared: &Shared, route: &Route) -> Fault {
    shared.metrics.panicked(route.label);
    Fault::internal(format!("the handler of {} panicked", route.label))
}

/// A response stream that may panic too, or fail; both end as a status.
struct Guarded {
    inner: Option<Body>,
    shared: Arc<Shared>,
    route: Route,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let status =
            match std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx))) {
                Ok(Poll::Ready(Some(Err(status)))) => status,
                Ok(other) => return other,
                Err(_) => to_status(panicked(&this.shared, &this.route)),
            };
        this.inner = None;
        Poll::Ready(Some(Ok(trailers(&status))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

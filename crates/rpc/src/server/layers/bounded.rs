//! A response that ends with a status when its time is over or its caller's
//! credential is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;

use super::deadline::Cut;
use crate::error::to_status;
use crate::server::body::trailers;

/// Shared with the watch; taken when the time is over.
type Inner = Arc<Mutex<Option<Body>>>;

pub(super) struct Bounded {
    inner: Inner,
    cut: Cut,
    over: bool,
    grpc: bool,
    watch: Option<AbortHandle>,
}

impl Bounded {
    /// Bounds `inner` by `cut`. HTTP polls a body only when its peer has room
    /// for more, so a peer that stops reading would keep a handler for ever:
    /// once `release` resolves the handler's stream is dropped, polled or not.
    pub(super) fn new(
        inner: Body,
        cut: Cut,
        release: Option<impl Future<Output = ()> + Send + 'static>,
        grpc: bool,
        tasks: &TaskTracker,
    ) -> Self {
        let inner = Arc::new(Mutex::new(Some(inner)));
        let watch = release.map(|release| {
            let inner = Arc::downgrade(&inner);
            let watch = async move {
                release.await;
                // Dropped outside of the lock: it runs the handler's own drops.
                let body = inner.upgrade().and_then(|inner| inner.lock().take());
                drop(body);
            };
            tokio::spawn(tasks.track_future(watch)).abort_handle()
        });
        Self { inner, cut, over: false, grpc, watch }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(fault) = Pin::new(&mut this.cut).poll(cx) {
            this.over = true;
            let body = this.inner.lock().take();
            drop(body);
            let status = to_status(fault);
            return Poll::Ready(Some(if this.grpc { Ok(trailers(&status)) } else { Err(status) }));
        }
        match &mut *this.inner.lock() {
            Some(inner) => Pin::new(inner).poll_frame(cx),
            // The watch was a moment faster than our own cut, which wakes us.
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        // A body that was taken still owes its status.
        self.over || self.inner.lock().as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.lock().as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

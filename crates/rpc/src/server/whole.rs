//! A request body that says when it was cut off.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Version};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use crate::error::broken_off;

/// Makes a request whose stream is cancelled end with an error. The server does
/// it for every request; a server that is not ours needs it as its outermost
/// layer.
pub fn whole<B>(request: Request<B>) -> Request<Body>
where
    B: http_body::Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Send + Unpin + 'static,
{
    if request.version() != Version::HTTP_2 {
        return request.map(Body::new);
    }
    request.map(|inner| Body::new(Whole { inner }))
}

/// A stream that is cancelled must not look like one that has ended: tonic
/// takes a CANCELLED request stream for its end, and half an upload for all of
/// it. So a request that breaks off ends with another code, and an end is
/// believed only when it was really sent.
struct Whole<B> {
    inner: B,
}

impl<B> http_body::Body for Whole<B>
where
    B: http_body::Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                let mut status = broken_off();
                // Whether its stream or all of its connection broke.
                status.set_source(Arc::new(error));
                Some(Err(status))
            }
            None if !self.inner.is_end_stream() => Some(Err(broken_off())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

//! Giving a call up for both directions at once.
//!
//! Dropping the answer of a call whose request stream is still open does not
//! reset it: the transport goes on with the request. And ending the request
//! stream would be the end of the input, not of the call. So the request's body
//! is made to break when the caller lets go.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use wolfpack_rpc::client::RpcChannel;

/// A channel whose calls are reset when a token is cancelled.
#[derive(Clone)]
pub(crate) struct Cancelling {
    channel: RpcChannel,
    token: CancellationToken,
}

impl Cancelling {
    pub(crate) fn new(channel: RpcChannel, token: CancellationToken) -> Self {
        Self { channel, token }
    }
}

impl Service<Request<Body>> for Cancelling {
    type Response = Response<Body>;
    type Error = Status;
    type Future = <RpcChannel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let cancelled = Box::pin(self.token.clone().cancelled_owned());
        self.channel
            .call(request.map(|inner| Body::new(Breaking { inner, cancelled, over: false })))
    }
}

/// A request body that breaks when the token is cancelled.
struct Breaking {
    inner: Body,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl http_body::Body for Breaking {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.cancelled.as_mut().poll(cx).is_ready() {
            self.over = true;
            return Poll::Ready(Some(Err(given_up())));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Resets the stream. Not with CANCEL: the other side's transport would take
/// that for the end of the input.
fn given_up() -> Status {
    Status::cancelled("the call was given up")
}

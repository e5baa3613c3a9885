//! Methods that see the HTTP request itself, as tower services.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::Service;
use wolfpack_rpc::Caller;
use wolfpack_tunnel::grpc;
use wolfpack_types::{Fault, Principal};

/// One method over a request that was authenticated and authorised.
pub trait Method: Send + Sync + 'static {
    /// Answers a call; a fault becomes the status of the call. Dropped when the
    /// caller gives up.
    fn call(
        self: Arc<Self>,
        caller: Caller,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Fault>> + Send;
}

/// A [`Method`] as a tower service.
pub struct Raw<M>(Arc<M>);

impl<M> Raw<M> {
    /// Wraps a method.
    #[must_use]
    pub fn new(method: M) -> Self {
        Self(Arc::new(method))
    }
}

impl<M> Clone for Raw<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Method> Service<Request<Body>> for Raw<M> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_else(|| Caller {
            principal: Principal::Anonymous,
            request_id: String::new(),
            deadline: None,
        });
        let method = self.0.clone();
        Box::pin(
            async move { Ok(method.call(caller, request).await.unwrap_or_else(grpc::refusal)) },
        )
    }
}

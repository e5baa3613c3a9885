//! The order of the layers, as data. A connection's limits come before all of
//! them, in the accept path; validation and idempotency come after, in the
//! handlers, by [`crate::request::checked`] and the store.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::ServiceExt as _;
use tower_service::Service;

use super::layers::{
    authenticate, authorise, deadline, load_shed, metrics, panic, rate_limit, trace,
};
use super::shared::Shared;

/// One step of the way of a request.
pub(crate) trait Handle: Send + Sync + 'static {
    fn handle(&self, request: Request<Body>) -> Answer;
}

/// Every refusal is a response, so there is no error.
pub(crate) type Answer = BoxFuture<'static, Response<Body>>;
pub(crate) type Next = Arc<dyn Handle>;

/// The layers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Trace,
    Metrics,
    CatchPanic,
    Deadline,
    LoadShed,
    Authenticate,
    RateLimit,
    Authorise,
}

/// Outermost first. Metrics stand outside of everything that refuses, so that
/// refusals are counted; the panic catch stands inside of them, so that panics
/// are; authentication costs, so overload is shed before it.
pub(crate) const ORDER: [Layer; 8] = [
    Layer::Trace,
    Layer::Metrics,
    Layer::CatchPanic,
    Layer::Deadline,
    Layer::LoadShed,
    Layer::Authenticate,
    Layer::RateLimit,
    Layer::Authorise,
];

impl Layer {
    fn wrap(self, shared: &Arc<Shared>, next: Next) -> Next {
        let shared = Arc::clone(shared);
        match self {
            Self::Trace => Arc::new(trace::Trace { next }),
            Self::Metrics => Arc::new(metrics::Count { shared, next }),
            Self::CatchPanic => Arc::new(panic::Catch { shared, next }),
            Self::Deadline => Arc::new(deadline::Deadline { shared, next }),
            Self::LoadShed => Arc::new(load_shed::LoadShed::new(&shared.profile, next)),
            Self::Authenticate => Arc::new(authenticate::Authenticate { shared, next }),
            Self::RateLimit => Arc::new(rate_limit::RateLimit { shared, next }),
            Self::Authorise => Arc::new(authorise::Authorise { next }),
        }
    }
}

/// All layers around what answers.
pub(crate) fn assemble(shared: &Arc<Shared>, inner: Next) -> Next {
    assemble_with(shared, inner, &|next| next)
}

/// The same with something before each layer and before what answers.
fn assemble_with(shared: &Arc<Shared>, inner: Next, before: &dyn Fn(Next) -> Next) -> Next {
    ORDER.iter().rev().fold(before(inner), |next, layer| before(layer.wrap(shared, next)))
}

/// A tower service as the last step.
pub(crate) struct Leaf<S>(pub(crate) S);

impl<S, B> Handle for Leaf<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    fn handle(&self, request: Request<Body>) -> Answer {
        let service = self.0.clone();
        Box::pin(async move {
            match service.oneshot(request).await {
                Ok(response) => response.map(Body::new),
                Err(never) => match never {},
            }
        })
    }
}

#[cfg(test)]
mod tests;

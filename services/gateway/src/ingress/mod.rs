//! HTTP ingress: requests for a port of a sandbox, on their way through its
//! tunnel. By host, `{port}--{id}.{domain}`, for browsers and everyone; by path,
//! `/v1/sandboxes/{id}/ports/{port}/`, for programs with a key.
//!
//! The gateway is not trusted here either: it passes the caller's own credential
//! on, and the tunnel-broker decides by it at every dial. What a dial opened is
//! used again for the same credential, sandbox and port only.

mod address;
mod admission;
mod body;
mod credential;
mod headers;
mod hop;
mod link;
mod metrics;
mod pool;
mod refusal;
mod serve;
mod target;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use wolfpack_rpc::server::{AddressRate, Peer, RateLimit};
use wolfpack_runtime::{Context, Supervisor};
use wolfpack_tunnel::Dial;

use crate::config::IngressConfig;
use address::{Asked, Domains};
use admission::Admission;
use metrics::Metrics;
use pool::Pool;
use refusal::Manner;
use serve::Visitor;

/// How often addresses that are quiet are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// The ingress of one gateway, over what opens its connections; cheap to clone.
pub(crate) struct Ingress<D> {
    inner: Arc<Inner<D>>,
    /// What each address may ask for, before anybody knows who it is.
    rate: Option<Arc<AddressRate>>,
}

struct Inner<D> {
    config: IngressConfig,
    domains: Domains,
    dialer: D,
    pool: Arc<Pool>,
    admission: Admission,
    metrics: Metrics,
    supervisor: Supervisor,
}

impl<D: Dial> Ingress<D> {
    /// An ingress whose connections are tasks of the context's supervisor.
    pub(crate) fn new(config: IngressConfig, dialer: D, context: &Context) -> Self {
        let pool = Arc::new(Pool::new(config.max_idle, config.idle_timeout));
        let sweep = Arc::clone(&pool).sweep(context.supervisor.token());
        context.supervisor.spawn("gateway.ingress.sweep", sweep);
        let inner = Inner {
            domains: Domains::new(&config.domains),
            admission: Admission::new(config.max_requests, config.max_requests_per_sandbox),
            metrics: Metrics::new(&context.telemetry.meter()),
            supervisor: context.supervisor.clone(),
            dialer,
            pool,
            config,
        };
        Self { inner: Arc::new(inner), rate: None }
    }

    /// The same ingress, for a listener whose clients have this rate by address.
    pub(crate) fn limited(&self, rate: Option<Arc<AddressRate>>) -> Self {
        Self { inner: Arc::clone(&self.inner), rate }
    }
}

/// What each address may ask for; its memory is looked after by a task of the
/// context's supervisor.
pub(crate) fn address_rate(config: &IngressConfig, context: &Context) -> Arc<AddressRate> {
    let (per_second, burst) = (config.requests_per_address, config.burst_per_address);
    let rate = Arc::new(AddressRate::new(RateLimit { per_second, burst }));
    let (swept, stop) = (Arc::clone(&rate), context.supervisor.token());
    context.supervisor.spawn("gateway.ingress.rate", async move {
        while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
            swept.sweep();
        }
    });
    rate
}

impl<D: Dial> wolfpack_rpc::server::Ingress for Ingress<D> {
    fn take(
        &self,
        request: Request<Incoming>,
        peer: &Arc<Peer>,
    ) -> Result<BoxFuture<'static, Response<Body>>, Request<Incoming>> {
        let address = match self.inner.domains.find(request.uri(), request.headers()) {
            Asked::Own => return Err(request),
            Asked::Port(address) => Ok(address),
            Asked::Wrong(fault) => Err(fault),
        };
        let inner = Arc::clone(&self.inner);
        let visitor = Visitor::of(peer);
        let allowed = self.rate.as_ref().map_or(Ok(()), |rate| rate.check(visitor.ip));
        Ok(Box::pin(async move {
            let counted = inner.metrics.request(address.as_ref().ok().map(|to| &to.form));
            let manner = Manner::of(request.headers());
            let answer = match allowed.and(address) {
                Ok(address) => inner.serve(&address, request, &visitor).await,
                Err(fault) => Err(fault.into()),
            };
            let response = answer.unwrap_or_else(|refused| refused.response(&manner, &visitor));
            counted.answered(response.status());
            response
        }))
    }
}

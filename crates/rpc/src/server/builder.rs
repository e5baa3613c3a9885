//! Puts a server together.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower_service::Service;
use wolfpack_runtime::Context;

use super::accept::Source;
use super::dispatch::Dispatch;
use super::health::HealthHandle;
use super::ingress::Ingress;
use super::io::BoxIo;
use super::listen::BoundListener;
use super::profile::Profile;
use super::reflection;
use super::serve::Server;
use super::shared::Peer;
use super::stack::{Leaf, Next};
use tokio_util::sync::CancellationToken;

use crate::auth::Authority;
use crate::policy::{PolicyRow, Table};

/// Collects services and listeners.
pub struct ServerBuilder {
    context: Context,
    policy: &'static [PolicyRow],
    authority: Arc<dyn Authority>,
    dispatch: Dispatch,
    descriptor_sets: Vec<&'static [u8]>,
    names: Vec<String>,
    ports: Vec<(Source, Profile)>,
    done: CancellationToken,
    ingress: Option<Arc<dyn Ingress>>,
}

impl ServerBuilder {
    pub(super) fn new(
        context: &Context,
        policy: &'static [PolicyRow],
        authority: Arc<dyn Authority>,
    ) -> Self {
        Self {
            context: context.clone(),
            policy,
            authority,
            dispatch: Dispatch::default(),
            descriptor_sets: Vec::new(),
            names: Vec::new(),
            ports: Vec::new(),
            done: CancellationToken::new(),
            ingress: None,
        }
    }

    /// Says when a drain need not wait for streams any longer, before the
    /// profile's `stream_drain` is over: once `done` is cancelled they end.
    #[must_use]
    pub fn streams_end_with(mut self, done: CancellationToken) -> Self {
        self.done = done;
        self
    }

    /// Adds a generated tonic service.
    #[must_use]
    pub fn add_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        self.dispatch.services.insert(S::NAME, Arc::new(Leaf(service)));
        self.names.push(S::NAME.to_owned());
        self
    }

    /// Adds a plain tower service for one path, or for all below it when
    /// `path` ends with a slash. All layers stand before it; the
    /// [`crate::request::Caller`] is in the request's extensions. Each path it
    /// answers needs its row in the policy.
    #[must_use]
    pub fn add_raw<S, B>(mut self, path: &'static str, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        let next: Next = Arc::new(Leaf(service));
        if path.ends_with('/') {
            self.dispatch.add_prefix(path, next);
        } else {
            self.dispatch.exact.insert(path, next);
        }
        self
    }

    /// Lists a service in health and reflection that is answered by
    /// [`ServerBuilder::add_raw`] or the fallback.
    #[must_use]
    pub fn announce(mut self, service: &str) -> Self {
        self.names.push(service.to_owned());
        self
    }

    /// Registers types with reflection.
    #[must_use]
    pub fn descriptor_set(mut self, encoded: &'static [u8]) -> Self {
        self.descriptor_sets.push(encoded);
        self
    }

    /// Answers every path that has neither a policy row nor a service. The
    /// fallback authenticates and authorises for itself: the kit asks nobody
    /// who calls, the [`crate::request::Caller`] it finds is nobody. Tracing,
    /// metrics, panic catch, client deadlines, load shedding and the rate
    /// limit by address apply.
    #[must_use]
    pub fn fallback<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        self.dispatch.fallback = Some(Arc::new(Leaf(service)));
        self
    }

    /// Hands requests that are for something behind the server to `ingress`,
    /// before anything of the server sees them.
    #[must_use]
    pub fn ingress(mut self, ingress: Arc<dyn Ingress>) -> Self {
        self.ingress = Some(ingress);
        self
    }

    /// Adds a listener. There may be several, each with its own limits.
    #[must_use]
    pub fn listen(mut self, listener: BoundListener, profile: Profile) -> Self {
        self.ports.push((Source::Tcp(listener), profile));
        self
    }

    /// Serves byte streams that something else accepts: a tunnel, a unix
    /// socket. Each comes with the peer that was authenticated on the way.
    #[must_use]
    pub fn incoming<S, T>(mut self, streams: S, profile: Profile) -> Self
    where
        S: Stream<Item = io::Result<(T, Peer)>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let streams = streams.map(|item| item.map(|(io, peer)| (Box::new(io) as BoxIo, peer)));
        self.ports.push((Source::Incoming(Box::pin(streams)), profile));
        self
    }

    /// Adds health and reflection and finishes.
    #[must_use]
    pub fn build(mut self) -> Server {
        let reporter = HealthReporter::new();
        let health = HealthHandle::new(reporter.clone(), self.names.clone());
        let service = HealthServer::new(HealthService::from_health_reporter(reporter));
        let mut names = self.names.clone();
        names.push("grpc.health.v1.Health".to_owned());
        let sets = std::mem::take(&mut self.descriptor_sets);
        let mut this = self.add_service(service);
        let v1 = reflection::builder(&sets, &names).build_v1();
        let v1alpha = reflection::builder(&sets, &names).build_v1alpha();
        let mut fault = None;
        match (v1, v1alpha) {
            (Ok(v1), Ok(v1alpha)) => this = this.add_service(v1).add_service(v1alpha),
            (Err(error), _) | (_, Err(error)) => fault = Some(error),
        }
        Server {
            table: Arc::new(Table::new(this.policy)),
            context: this.context,
            authority: this.authority,
            dispatch: Arc::new(this.dispatch),
            ports: this.ports,
            done: this.done,
            ingress: this.ingress,
            health,
            fault,
        }
    }
}

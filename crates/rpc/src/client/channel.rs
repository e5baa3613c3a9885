//! The channel that generated clients are made of.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;
use tower_service::Service;
use tracing::{Instrument as _, Span, field};
use wolfpack_runtime::telemetry::spawn_as;
use wolfpack_runtime::{BoxError, trace_context};

use super::bearer::Bearer;
use super::connector;
use super::cut::cuttable;
use super::response::{self, exceeded};
use crate::call;
use crate::h2::{ByteBudget, Client, Hold, Settings};
use crate::server::BoxIo;
use crate::server::layers::trace::REQUEST_ID;
use crate::timeout;
use crate::tls::{ClientTls, Expect};

/// What a call gets that sets no deadline of its own.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// `https://host:port`, or `http://host:port` on loopback.
    pub address: String,
}

impl PeerConfig {
    /// A peer at an address.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }
}

/// A channel cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The address is not one.
    #[error("{0:?} is not an address; write https://host:port")]
    Address(String),
    /// Without TLS only this machine is spoken to.
    #[error("{0:?} is not on this machine and has no tls; write https://host:port")]
    PlainRemote(String),
    /// There is nothing to verify the server with.
    #[error("{0:?} needs tls files to verify the server with; set tls")]
    TlsMissing(String),
}

/// A channel to one service: connects at the first call, reconnects after a
/// loss, fails fast while there is no connection. Clones share the connection;
/// [`RpcChannel::with_deadline`] and [`RpcChannel::with_bearer`] make clones
/// that differ only in that.
///
/// It sends the trace context, a request id (that of the call being handled,
/// where there is one), and always a deadline unless told otherwise; the time
/// left of the call being handled bounds it. Its errors are statuses with an
/// `ErrorInfo`, `DEPENDENCY_UNAVAILABLE` where the service cannot be reached.
/// It must be made inside a tokio runtime.
#[derive(Clone)]
pub struct RpcChannel {
    transport: Transport,
    peer: Arc<str>,
    deadline: Option<Duration>,
    bearer: Option<Bearer>,
    outage: Arc<response::Outage>,
}

impl RpcChannel {
    /// A channel to one of our services, known by its certificate's
    /// `spiffe://wolfpack/svc/{service}`, whatever the host is called.
    ///
    /// # Errors
    /// When the address is none, or is remote without TLS.
    pub fn to_service(
        peer: &PeerConfig,
        service: &'static str,
        tls: Option<&ClientTls>,
    ) -> Result<Self, ChannelError> {
        let expect = Expect::Service(service.to_owned());
        Self::tcp(&peer.address, service, tls.map(|tls| (tls.clone(), expect)))
    }

    /// A channel to the gateway as users and joining wolves see it, known by
    /// its host's name or address (or as our gateway, where our own CA is
    /// trusted).
    ///
    /// # Errors
    /// When the address is none, or is remote without TLS.
    pub fn to_gateway(
        url: &str,
        tls: Option<&ClientTls>,
        api_key: Option<SecretString>,
    ) -> Result<Self, ChannelError> {
        let expect = Expect::Host { or_service: Some("gateway") };
        let channel = Self::tcp(url, "gateway", tls.map(|tls| (tls.clone(), expect)))?;
        Ok(match api_key {
            Some(key) => channel.with_bearer(key),
            None => channel,
        })
    }

    /// gRPC over byte streams that `connect` opens, such as those of a tunnel:
    /// one at the first call, another after each loss. `peer` is a name for
    /// spans and errors. An error that is a [`wolfpack_types::Fault`] reaches
    /// the caller with its reason.
    pub fn over<F, Fut, T, E>(peer: &str, connect: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        E: Into<BoxError>,
    {
        // The outer stream has a window too, so the inner ones are small.
        let endpoint = endpoint(Uri::from_static("http://tunnel.wolfpack.internal"))
            .initial_stream_window_size(256 * KIB)
            .initial_connection_window_size(4 * MIB)
            .max_frame_size(32 * KIB);
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let connecting = connect();
            async move { connecting.await.map(TokioIo::new).map_err(Into::<BoxError>::into) }
        }));
        Self::new(Transport::Calls(channel), peer)
    }

    /// As [`RpcChannel::to_service`], for the tunnel of an agent: thousands of
    /// streams, all of which may send ahead only what `budget` allows.
    ///
    /// # Errors
    /// When the address is none, or is remote without TLS.
    pub fn for_tunnel(
        peer: &PeerConfig,
        service: &'static str,
        tls: Option<&ClientTls>,
        budget: &ByteBudget,
    ) -> Result<Self, ChannelError> {
        let expect = Expect::Service(service.to_owned());
        let place = Place::parse(&peer.address, tls.map(|tls| (tls.clone(), expect)))?;
        let Place { origin, target, tls } = place;
        let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = origin.authority().cloned();
        let authority = authority.ok_or_else(|| ChannelError::Address(peer.address.clone()))?;
        let connect = Box::new(move || connector::connect(target.clone(), tls.clone()).boxed());
        let client = Client::new(scheme, authority, connect, TUNNEL, budget.clone());
        Ok(Self::new(Transport::Data(client), service))
    }

    /// As [`RpcChannel::for_tunnel`], over byte streams that `connect` opens, such as
    /// those of a simulated network. `peer` is a name for errors.
    pub fn for_tunnel_over<F, Fut, T, E>(peer: &str, budget: &ByteBudget, connect: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        E: Into<BoxError>,
    {
        let connect = Box::new(move || {
            let connecting = connect();
            async move {
                let io = connecting.await.map_err(Into::<BoxError>::into)?;
                Ok(Box::new(io) as BoxIo)
            }
            .boxed()
        });
        let authority = Authority::from_static("tunnel.wolfpack.internal");
        let client = Client::new(Scheme::HTTP, authority, connect, TUNNEL, budget.clone());
        Self::new(Transport::Data(client), peer)
    }

    fn new(transport: Transport, peer: &str) -> Self {
        Self {
            transport,
            peer: Arc::from(peer),
            deadline: Some(DEFAULT_DEADLINE),
            bearer: None,
            outage: Arc::default(),
        }
    }

    fn tcp(url: &str, peer: &str, tls: Option<(ClientTls, Expect)>) -> Result<Self, ChannelError> {
        let Place { origin, target, tls } = Place::parse(url, tls)?;
        let channel = endpoint(target)
            .origin(origin)
            .initial_stream_window_size(MIB)
            .initial_connection_window_size((1 << 31) - 1)
            .max_frame_size(64 * KIB)
            .connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
                let connecting = connector::connect(uri, tls.clone());
                async move { connecting.await.map(TokioIo::new) }
            }));
        Ok(Self::new(Transport::Calls(channel), peer))
    }

    /// The same channel with another default deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The same channel without a deadline, for streams that stay open and for
    /// passing on a call that has its own. Neither is it bound by the call
    /// being handled.
    #[must_use]
    pub fn without_deadline(&self) -> Self {
        Self { deadline: None, ..self.clone() }
    }

    /// The same channel with a bearer on every call that has none.
    #[must_use]
    pub fn with_bearer(&self, bearer: impl Into<Bearer>) -> Self {
        Self { bearer: Some(bearer.into()), ..self.clone() }
    }

    /// Who is at the other end, for people.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The span of a call, in the trace that goes on here. A call without a
    /// deadline may outlive the work it was made in, as a connection outlives
    /// the first call on it, and a span is exported only when all those inside
    /// it have ended: so it is not inside, though it has its parent in the trace.
    fn span(&self, method: &str) -> Span {
        let inside = self.deadline.is_some();
        let span = tracing::info_span!(
            parent: inside.then(Span::current).and_then(|around| around.id()),
            "rpc.client",
            otel.name = method,
            otel.kind = "client",
            otel.status_code = field::Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.response.status_code = field::Empty,
            server.address = &*self.peer,
        );
        if !inside && let Some(parent) = trace_context::current_traceparent() {
            trace_context::set_parent(&span, &parent);
        }
        span
    }

    /// The headers every call has; the moment it must end by.
    fn prepare(&self, request: &mut Request<Body>) -> Result<Option<Instant>, Status> {
        let scope = call::current();
        let headers = request.headers_mut();
        if !headers.contains_key(header::AUTHORIZATION)
            && let Some(bearer) = &self.bearer
        {
            let value = bearer.header().ok_or_else(|| response::unusable_bearer(&self.peer))?;
            headers.insert(header::AUTHORIZATION, value);
        }
        if !headers.contains_key(REQUEST_ID) {
            let id = scope.request_id.as_deref().map(HeaderValue::from_str);
            let fresh = || HeaderValue::from_str(&uuid::Uuid::now_v7().simple().to_string());
            if let Ok(id) = id.unwrap_or_else(fresh) {
                headers.insert(REQUEST_ID, id);
            }
        }
        if let Some(parent) = trace_context::current_traceparent()
            && let Ok(parent) = HeaderValue::from_str(&parent)
        {
            headers.insert("traceparent", parent);
        }
        let now = Instant::now();
        let given = timeout::read(headers).ok().flatten();
        let mut left = given.or(self.deadline);
        if self.deadline.is_some()
            && let Some(deadline) = scope.deadline
        {
            let inherited = deadline.saturating_duration_since(now);
            left = Some(left.map_or(inherited, |left| left.min(inherited)));
        }
        let Some(left) = left else { return Ok(None) };
        if left.is_zero() {
            return Err(exceeded(&self.peer));
        }
        headers.insert(timeout::GRPC_TIMEOUT, timeout::write(left));
        Ok(now.checked_add(left))
    }
}

impl RpcChannel {
    /// Counts one connection that is carried, until what it gives is dropped;
    /// nothing where no budget is kept.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        match &self.transport {
            Transport::Calls(_) => None,
            Transport::Data(client) => Some(client.budget().hold()),
        }
    }

    /// What bounds the bytes that peers send ahead: of the channel's own, or one that
    /// nobody else holds where none is kept.
    #[must_use]
    pub fn budget(&self) -> ByteBudget {
        match &self.transport {
            Transport::Calls(_) => ByteBudget::default(),
            Transport::Data(client) => client.budget().clone(),
        }
    }

    /// Changes how many bytes the peer may send ahead on one stream when there are
    /// few; the budget goes on to bound all of them. Nothing where none is kept.
    pub fn widen(&self, stream_window: u32) {
        if let Transport::Data(client) = &self.transport {
            client.budget().set_largest(stream_window);
        }
    }

    /// Opens a stream that is a protocol of its own, such as that of a tunnel's
    /// connection: it gets the channel's bearer, and neither a deadline nor a
    /// span, nor does anyone watch its answer.
    ///
    /// # Errors
    /// As any call; a failure of the rpc itself is in the answer.
    pub async fn open(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        if let Some(bearer) = &self.bearer {
            let value = bearer.header().ok_or_else(|| response::unusable_bearer(&self.peer))?;
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = self.transport.clone().call(request).await;
        let answer = answer.map_err(|error| response::failed(&self.peer, error, &self.outage))?;
        self.outage.over();
        Ok(answer)
    }
}

impl Service<Request<Body>> for RpcChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Readiness is waited for inside the call, within its deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let span = self.span(&method);
        let prepared = span.in_scope(|| self.prepare(&mut request));
        let transport = self.transport.clone();
        let (peer, outage) = (Arc::clone(&self.peer), Arc::clone(&self.outage));
        let inner = span.clone();
        Box::pin(
            async move {
                let deadline = prepared?;
                let answer = transport.call(request);
                let failed = |error: BoxError| response::failed(&peer, error, &outage);
                let answered = match deadline {
                    // Ours first: tonic's own timer would answer CANCELLED.
                    Some(at) => tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at.into()) => Err(exceeded(&peer)),
                        answer = answer => answer.map_err(failed),
                    },
                    None => answer.await.map_err(failed),
                };
                if answered.is_ok() {
                    outage.over();
                }
                response::watch(answered, peer, deadline, span)
            }
            .instrument(inner),
        )
    }
}

/// What carries the calls.
#[derive(Clone)]
enum Transport {
    Calls(Channel),
    Data(Client),
}

impl Transport {
    async fn call(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        match self {
            Self::Calls(channel) => channel.oneshot(request).await.map_err(Into::into),
            Self::Data(client) => client.call(request).await,
        }
    }
}

/// Where a peer is, and how it is to be spoken to.
struct Place {
    /// As requests say it.
    origin: Uri,
    /// What to connect to. Its scheme is always http: the connector ends TLS.
    target: Uri,
    tls: Option<(ClientTls, Expect)>,
}

impl Place {
    fn parse(url: &str, tls: Option<(ClientTls, Expect)>) -> Result<Self, ChannelError> {
        let wrong = || ChannelError::Address(url.to_owned());
        let origin: Uri = url.parse().map_err(|_| wrong())?;
        let authority = origin.authority().ok_or_else(wrong)?;
        let tls = match origin.scheme_str() {
            Some("https") => Some(tls.ok_or_else(|| ChannelError::TlsMissing(url.to_owned()))?),
            Some("http") if is_local(authority.host()) => None,
            Some("http") => return Err(ChannelError::PlainRemote(url.to_owned())),
            _ => return Err(wrong()),
        };
        let port = authority.port_u16().unwrap_or_else(|| if tls.is_some() { 443 } else { 80 });
        let target = format!("http://{}:{port}", authority.host()).parse().map_err(|_| wrong())?;
        Ok(Self { origin, target, tls })
    }
}

/// How an agent speaks to its broker.
const TUNNEL: Settings = Settings {
    connection_window: (1 << 31) - 1,
    max_frame: 256 * KIB,
    header_list_size: 16 * KIB,
    // A broker opens none.
    max_streams: 0,
    local_resets: 16_384,
    pending_resets: 16,
    keepalive: Duration::from_secs(10),
    keepalive_timeout: Duration::from_secs(5),
};

fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .user_agent(concat!("wolfpack/", env!("CARGO_PKG_VERSION")))
        .unwrap_or_else(|_| Endpoint::from_static("http://tunnel.wolfpack.internal"))
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(16 * KIB)
        .http2_max_local_error_reset_streams(Some(16_384))
        .executor(Tasks { dispatch: tracing::dispatcher::get_default(Clone::clone) })
}

/// Runs a channel's connections under the telemetry of who made the channel.
/// They end when the last clone of the channel is dropped.
#[derive(Clone)]
struct Tasks {
    dispatch: tracing::Dispatch,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, work: F) {
        spawn_as(&self.dispatch, cuttable(work));
    }
}

fn is_local(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;

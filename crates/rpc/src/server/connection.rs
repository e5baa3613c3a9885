//! One connection: the first bytes, then HTTP with explicit limits, until it
//! ends, is drained or is cut.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use wolfpack_runtime::BoxError;
use wolfpack_runtime::telemetry::spawn_as;

use super::cut::cuttable;
use super::drain::Drain;
use super::ingress::Ingress;
use super::io::{BoxIo, Protocol, Rewound, sniff};
use super::metrics::Refusal;
use super::profile::Profile;
use super::shared::{Peer, Route};
use super::stack::{Answer, Next};
use super::whole::whole;
use crate::coalesce::Coalesce;
use crate::h2::{self, ByteBudget, Settings, Times};
use crate::policy::Table;

/// How long an idle HTTP/1.1 connection is kept.
const HTTP1_IDLE: Duration = Duration::from_secs(60);

/// Everything a connection needs to be served.
pub(crate) struct Connection {
    pub(crate) profile: Profile,
    pub(crate) table: Arc<Table>,
    pub(crate) served: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    pub(crate) has_fallback: bool,
    pub(crate) ingress: Option<Arc<dyn Ingress>>,
    pub(crate) stack: Next,
    pub(crate) drain: Drain,
    pub(crate) dispatch: tracing::Dispatch,
}

/// What one connection is bound by besides its profile.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// The client's certificate ends then: the connection takes no new
    /// streams, so that the client comes again with a fresh one.
    pub(crate) certificate_expires: Option<Instant>,
}

impl Connection {
    /// Serves until the connection ends.
    ///
    /// # Errors
    /// When the peer did not begin in time, or speaks something else.
    pub(crate) async fn serve(
        self: Arc<Self>,
        io: BoxIo,
        peer: Peer,
        limits: Limits,
    ) -> Result<(), Refusal> {
        let first = tokio::time::timeout(self.profile.first_byte_deadline, sniff(io));
        let (protocol, io) = tokio::select! {
            biased;
            // Whoever has not begun when a drain does has nothing to lose.
            () = self.drain.begin.cancelled() => return Ok(()),
            first = first => first.map_err(|_| Refusal::Preface)?.map_err(|_| Refusal::Preface)?,
        };
        // Boxed, so that a connection takes the room of what it speaks, and no more.
        let ended = match (protocol, &self.profile.budget) {
            (Protocol::Http2, Some(budget)) => Box::pin(self.data(io, peer, &limits, budget)).await,
            (Protocol::Http2, None) => Box::pin(self.http2(io, peer, &limits)).await,
            (Protocol::Other, _) if self.profile.http1 => {
                Box::pin(self.http1(io, peer, &limits)).await
            }
            (Protocol::Other, _) => return Err(Refusal::Preface),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
        Ok(())
    }

    /// HTTP/2 of the data plane.
    async fn data(
        self: &Arc<Self>,
        io: Rewound,
        peer: Peer,
        limits: &Limits,
        budget: &ByteBudget,
    ) -> Result<(), BoxError> {
        let profile = &self.profile;
        let settings = Settings {
            connection_window: profile.connection_window,
            max_frame: profile.max_frame,
            header_list_size: profile.header_list_size,
            max_streams: profile.max_concurrent_streams,
            local_resets: profile.local_reset_streams,
            pending_resets: profile.pending_reset_streams,
            keepalive: profile.keepalive_interval,
            keepalive_timeout: profile.keepalive_timeout,
        };
        let peer = Arc::new(peer);
        let handle = |request| self.handle(request, &peer);
        // They end with the connection, and so with its cut.
        let spawn = |stream: h2::Stream<Answer>| {
            spawn_as(&self.dispatch, self.drain.tasks.track_future(stream.run()));
        };
        let times = Times {
            leave: self.leave(limits),
            end: Box::pin(stranger(peer.clone(), profile.stranger_deadline)),
        };
        Ok(h2::serve(io, &settings, budget, handle, spawn, times).await?)
    }

    async fn http2(
        self: &Arc<Self>,
        io: Rewound,
        peer: Peer,
        limits: &Limits,
    ) -> Result<(), BoxError> {
        let profile = &self.profile;
        let mut builder = http2::Builder::new(Streams {
            dispatch: self.dispatch.clone(),
            drain: self.drain.clone(),
        });
        builder
            .timer(TokioTimer::new())
            .adaptive_window(false)
            .max_concurrent_streams(profile.max_concurrent_streams)
            .initial_stream_window_size(profile.stream_window)
            .initial_connection_window_size(profile.connection_window)
            .max_frame_size(profile.max_frame)
            .max_header_list_size(profile.header_list_size)
            .max_local_error_reset_streams(profile.local_reset_streams)
            .max_pending_accept_reset_streams(profile.pending_reset_streams)
            .keep_alive_interval(profile.keepalive_interval)
            .keep_alive_timeout(profile.keepalive_timeout);
        if self.ingress.is_some() {
            builder.enable_connect_protocol();
        }
        let service = self.service(peer);
        let mut connection = Box::pin(
            builder.serve_connection(TokioIo::new(Coalesce::new(io)), service_fn(service)),
        );
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = self.leave(limits) => {}
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }

    async fn http1(
        self: &Arc<Self>,
        io: Rewound,
        peer: Peer,
        limits: &Limits,
    ) -> Result<(), BoxError> {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP1_IDLE)
            .max_buf_size((self.profile.header_list_size as usize * 4).max(16 * 1024));
        let service = self.service(peer);
        let mut connection = Box::pin(
            builder.serve_connection(TokioIo::new(io), service_fn(service)).with_upgrades(),
        );
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = self.leave(limits) => {}
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }

    /// Resolves when no new request shall come. Boxed: it waits as long as the
    /// connection lives, and most have no certificate that may end.
    fn leave(&self, limits: &Limits) -> BoxFuture<'static, ()> {
        let begin = self.drain.begin.clone();
        let Some(expires) = limits.certificate_expires else {
            return Box::pin(begin.cancelled_owned());
        };
        Box::pin(async move {
            tokio::select! {
                () = begin.cancelled() => {}
                () = tokio::time::sleep_until(expires) => {
                    tracing::info!("the certificate of a peer ended; it has to connect again");
                }
            }
        })
    }

    fn service(self: &Arc<Self>, peer: Peer) -> impl Fn(Request<Incoming>) -> Service + use<> {
        let this = Arc::clone(self);
        let peer = Arc::new(peer);
        move |mut request| {
            if let Some(ingress) = &this.ingress {
                request = match ingress.take(request, &peer) {
                    Ok(answer) => return Service(answer),
                    Err(own) => own,
                };
                if request.method() == Method::CONNECT {
                    return Service(Box::pin(async { no_connect() }));
                }
            }
            Service(this.handle(request, &peer))
        }
    }

    /// Answers a request by the layers and what is behind them.
    fn handle<B>(&self, request: Request<B>, peer: &Arc<Peer>) -> Answer
    where
        B: http_body::Body<Data = Bytes, Error: Error + Send + Sync + 'static>
            + Send
            + Unpin
            + 'static,
    {
        let mut request = whole(request);
        let route = Route::find(&request, &self.table, self.has_fallback, &*self.served);
        request.extensions_mut().insert(route);
        request.extensions_mut().insert(Arc::clone(peer));
        self.stack.handle(request)
    }
}

/// Whether nobody known has called in time.
async fn stranger(peer: Arc<Peer>, time: Duration) -> bool {
    tokio::time::sleep(time).await;
    peer.principal().is_none() && !peer.called.load(Ordering::Relaxed)
}

/// Nothing of ours is behind a CONNECT, and a good answer would open a tunnel.
fn no_connect() -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// A call that cannot fail but by its response.
struct Service(Answer);

impl Future for Service {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

/// Runs the streams of a connection: under the service's own telemetry, and
/// known to the drain.
#[derive(Clone)]
struct Streams {
    dispatch: tracing::Dispatch,
    drain: Drain,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let cut: CancellationToken = self.drain.cut.clone();
        let stream = async move {
            cut.run_until_cancelled(cuttable(stream)).await;
        };
        // The connection's task is the supervisor's; its streams are the
        // connection's, and are counted and cut with it.
        spawn_as(&self.dispatch, self.drain.tasks.track_future(stream));
    }
}

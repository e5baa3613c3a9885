//! Around every call: who may make it, and one span and one log line.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};
use tracing::instrument::WithSubscriber as _;
use tracing::{Dispatch, Instrument as _, dispatcher, field, info, info_span};
use wolfpack_rpc::error::to_status;
use wolfpack_rpc::server::whole;
use wolfpack_runtime::trace_context;
use wolfpack_tunnel::TunnelPeer;
use wolfpack_types::{Fault, Reason};

/// The only caller over the tunnel, as the broker names it.
pub const ALLOWED_CALLER: &str = "services/sandbox-manager";

/// Who connected to the agent's socket: whoever the socket's owner and mode let
/// in, which is the wolf's agent.
#[derive(Debug, Clone)]
pub struct LocalPeer;

/// Wraps a service with [`Guarded`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard;

/// Refuses callers that are not known and traces the calls of those that are,
/// under the telemetry it was made under: a connection's own tasks have none.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
    dispatch: Dispatch,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, dispatch: dispatcher::get_default(Dispatch::clone) }
    }
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let caller = caller(&request);
        let dispatch = self.dispatch.clone();
        let guard = dispatcher::set_default(&dispatch);
        let span = info_span!(
            parent: None,
            "rpc.server",
            otel.name = method,
            otel.kind = "server",
            otel.status_code = field::Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.response.status_code = field::Empty,
            principal = caller.as_deref().unwrap_or("unknown"),
            request_id = header(request.headers(), "x-request-id").unwrap_or_default(),
        );
        let outer = request.extensions().get::<TunnelPeer>().map(|peer| peer.traceparent.clone());
        let traceparent = header(request.headers(), "traceparent").map(str::to_owned).or(outer);
        if let Some(traceparent) = traceparent {
            trace_context::set_parent(&span, &traceparent);
        }
        drop(guard);
        let fresh = self.inner.clone();
        // The one that said it was ready takes the call.
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let inside = span.clone();
        let work = async move {
            let began = Instant::now();
            let response = match caller {
                // Cancelled input must not look like all of it to a program.
                Ok(_) => inner.call(whole(request)).await?,
                Err(fault) => to_status(*fault).into_http(),
            };
            let code = Status::from_header_map(response.headers())
                .map_or(tonic::Code::Ok, |status| status.code());
            inside.record("rpc.response.status_code", field::debug(code));
            if matches!(
                code,
                tonic::Code::Internal | tonic::Code::Unknown | tonic::Code::Unavailable
            ) {
                inside.record("otel.status_code", "ERROR");
            }
            info!(
                answered_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                "call"
            );
            Ok(response)
        };
        Box::pin(work.instrument(span).with_subscriber(dispatch))
    }
}

fn caller(request: &Request<Body>) -> Result<String, Box<Fault>> {
    let extensions = request.extensions();
    if extensions.get::<LocalPeer>().is_some() {
        return Ok("wolf".to_owned());
    }
    match extensions.get::<TunnelPeer>() {
        Some(peer) if peer.caller == ALLOWED_CALLER => Ok(peer.caller.clone()),
        _ => Err(Box::new(Fault::new(
            Reason::CallerForbidden,
            "only the sandbox-manager may call a sandbox's agent; call the sandbox-manager",
        ))),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| value.len() <= 128)
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use wolfpack_runtime::{Telemetry, TelemetryConfig};

    use tower::{ServiceExt as _, service_fn};
    use wolfpack_rpc::from_status;

    use super::*;

    fn peer(caller: &str) -> TunnelPeer {
        TunnelPeer {
            caller: caller.to_owned(),
            connection_id: "c".to_owned(),
            traceparent: String::new(),
            target: "agent".to_owned(),
        }
    }

    async fn reason(request: Request<Body>) -> Option<Reason> {
        let served = service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let response = guarded(served).oneshot(request).await.unwrap();
        Status::from_header_map(response.headers()).map(|status| from_status(&status).reason)
    }

    /// Made under the service's telemetry and called outside of it, as a
    /// connection's task does. One telemetry for all tests: a span that is first
    /// met without any may be taken for one that nobody wants.
    fn guarded<S>(inner: S) -> Guarded<S> {
        static MADE: OnceLock<Telemetry> = OnceLock::new();
        let made = MADE
            .get_or_init(|| Telemetry::new("sandbox-agent", &TelemetryConfig::default()).unwrap());
        dispatcher::with_default(&made.dispatch(), || Guard.layer(inner))
    }

    #[tokio::test]
    async fn only_the_manager_and_the_wolf_get_through() {
        let from = |caller: &str| {
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(peer(caller));
            request
        };
        assert_eq!(reason(from(ALLOWED_CALLER)).await, None);
        for other in
            ["", "services/gateway", "users/u", "services/sandbox-manager/x", "sandboxes/s"]
        {
            assert_eq!(reason(from(other)).await, Some(Reason::CallerForbidden), "{other:?}");
        }
        let mut local = Request::new(Body::empty());
        local.extensions_mut().insert(LocalPeer);
        assert_eq!(reason(local).await, None);
        assert_eq!(
            reason(Request::new(Body::empty())).await,
            Some(Reason::CallerForbidden),
            "nobody"
        );
    }

    #[tokio::test]
    async fn a_call_goes_on_in_the_trace_of_its_caller() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let other = "00-11111111111111111111111111111111-00f067aa0ba902b7-01";
        let (seen, mut inside) = tokio::sync::mpsc::channel(1);
        let served = service_fn(move |_: Request<Body>| {
            let seen = seen.clone();
            async move {
                let _ = seen.try_send(trace_context::current_traceparent());
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let mut request = Request::new(Body::empty());
        // The call's own header counts before that of its connection.
        request
            .extensions_mut()
            .insert(TunnelPeer { traceparent: other.to_owned(), ..peer(ALLOWED_CALLER) });
        request.headers_mut().insert("traceparent", trace.parse().unwrap());
        guarded(served).oneshot(request).await.unwrap();
        let inside = inside.recv().await.unwrap().unwrap();
        assert_eq!(inside[..36], trace[..36], "the same trace");
        assert_ne!(inside, trace, "a span of its own");
    }
}

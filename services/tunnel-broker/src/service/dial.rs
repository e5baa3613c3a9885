//! `DialService.Dial`: a caller's connection, spliced to a stream of an agent.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tonic::body::Body;
use tracing::Instrument as _;
use wolfpack_proto::tunnel::v1::{DialOpen, DialOpened, DialResponse, dial_request, dial_response};
use wolfpack_rpc::{Caller, check, from_status};
use wolfpack_runtime::trace_context;
use wolfpack_tunnel::grpc;
use wolfpack_tunnel::protocol::encode;
use wolfpack_tunnel::splice::CallerStream;
use wolfpack_types::{Endpoint, Fault, Reason, Target};

use super::raw::Method;
use crate::audit::Audited;
use crate::connect::{Allowed, Counting, Dialing, Head, Opened, link, park};
use crate::domain::access::may_dial;
use crate::domain::target;
use crate::metrics::Metrics;
use crate::state::Broker;

/// Dial as a method.
pub struct DialMethod {
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
}

impl DialMethod {
    /// Dial over this state.
    #[must_use]
    pub fn new(broker: Arc<Broker>, metrics: Arc<Metrics>) -> Self {
        Self { broker, metrics }
    }

    async fn dial(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Fault> {
        self.broker.not_draining()?;
        let late = || {
            Fault::new(Reason::FirstMessageMissing, "the first message must be open, within 5 s")
        };
        let accepted = CallerStream::accept(request.into_body());
        let (stream, first) = tokio::time::timeout(self.broker.limits.first_message, accepted)
            .await
            .map_err(|_| late())??;
        let Some(dial_request::Frame::Open(open)) = first.frame else { return Err(late()) };
        let target = target::read(&open.target)?;
        check(&open).map_err(|status| from_status(&status))?;
        let endpoint = Endpoint::parse(&open.endpoint)?;
        let audited = Audited::of(&caller.principal, &endpoint, &target);
        let refusal = audited.clone();
        let allowed = || {
            let owner = self.broker.owner(&endpoint);
            may_dial(&caller.principal, &endpoint, &owner, &target).inspect_err(|fault| {
                if let Some(audited) = &refusal {
                    audited.refused(fault);
                }
            })
        };
        allowed()?;
        let span = tracing::info_span!(
            "broker.dial",
            otel.kind = "internal",
            %endpoint,
            %target,
            caller = %caller.principal,
            connection_id = tracing::field::Empty,
            via = tracing::field::Empty,
        );
        let mut head = Head::given(&open.early_data);
        let dialing = self.dialing(caller, &open, (endpoint.clone(), target.clone()), &allowed);
        self.splice(dialing, &mut head, audited, stream).instrument(span).await
    }

    fn dialing<'a>(
        &'a self,
        caller: &Caller,
        open: &DialOpen,
        (endpoint, target): (Endpoint, Target),
        allowed: &'a Allowed<'a>,
    ) -> Dialing<'a> {
        Dialing {
            broker: &self.broker,
            endpoint,
            allowed,
            target,
            deadline: tokio::time::Instant::now() + self.time_for(caller, open),
            caller: caller.principal.to_string(),
            connection_id: uuid::Uuid::now_v7().simple().to_string(),
            traceparent: String::new(),
        }
    }

    async fn splice(
        &self,
        mut dialing: Dialing<'_>,
        head: &mut Head<'_>,
        audited: Option<Audited>,
        stream: CallerStream,
    ) -> Result<Response<Body>, Fault> {
        let counted = self.broker.count()?;
        // The caller's stream is the second one that is received, and may send ahead
        // while the agent is waited for.
        let ahead = self.broker.budget.hold();
        dialing.traceparent = trace_context::current_traceparent().unwrap_or_default();
        let Opened { session, permit, carry, via } = dialing.run(head).await?;
        let span = tracing::Span::current();
        span.record("connection_id", &dialing.connection_id).record("via", via);
        let connection = audited.map(|audited| audited.opened(dialing.connection_id.clone()));
        let held = (counted, permit);
        let early = head.bytes().len();
        let link = link(&self.broker, &self.metrics, &session, held, early, move |end| {
            if let Some(connection) = connection {
                connection.ended(end.fault.as_ref());
            }
            drop(ahead);
        });
        let opened = DialResponse {
            frame: Some(dial_response::Frame::Opened(DialOpened {
                connection_id: dialing.connection_id.clone(),
            })),
        };
        let park = park(&self.broker, &session);
        let body = carry.splice(link, stream, encode::message(&opened), Some(park));
        let body = body.ok_or_else(|| {
            Fault::new(Reason::TunnelLost, "the tunnel of the connection is gone; dial again")
        })?;
        Ok(grpc::response(body))
    }

    /// How long this dial may take.
    fn time_for(&self, caller: &Caller, open: &DialOpen) -> Duration {
        let limits = &self.broker.limits;
        let asked = open.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
        let time = asked.unwrap_or_else(|| caller.remaining(limits.dial_timeout));
        time.min(limits.max_dial_timeout)
    }
}

impl Method for DialMethod {
    async fn call(
        self: Arc<Self>,
        caller: Caller,
        request: Request<Body>,
    ) -> Result<Response<Body>, Fault> {
        let counted = Counting::of(&self.metrics);
        let result = self.dial(&caller, request).await;
        counted.end(result.as_ref().err());
        result
    }
}

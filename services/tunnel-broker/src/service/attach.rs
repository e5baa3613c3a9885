//! `AgentTunnelService.Attach`: one control stream for each agent.
//!
//! Who the agent is is checked when the call begins. From then on the server's
//! layers follow a sandbox's boot: once that is revoked the call ends with
//! `SANDBOX_TOKEN_REVOKED`, before its `Hello` as well as after, and its session
//! with it. What ends by time does not end a session: neither the expiry of the
//! token it was opened with (the agent refreshes the token beside it), nor that
//! of a wolf's certificate, after which the connection takes no new streams but
//! keeps this one. Both count again when the agent attaches anew.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::mpsc;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use wolfpack_proto::tunnel::v1::attach_response::Message;
use wolfpack_proto::tunnel::v1::{
    AttachRequest, AttachResponse, Ping, Pong, Welcome, attach_request,
};
use wolfpack_rpc::{Caller, StreamCut, to_status};
use wolfpack_runtime::{Supervisor, clock};
use wolfpack_tunnel::protocol::{Heartbeat, Life};
use wolfpack_types::{Fault, Principal, Reason};

use super::raw::Method;
use super::small_codec::SmallCodec;
use crate::audit;
use crate::domain::hello;
use crate::state::{Broker, CONTROL_QUEUE, Session, SessionSpec};

/// The largest control message of an agent: a `Hello` with all its offers.
const MAX_MESSAGE: usize = 256 * 1024;

/// How long an agent may take to hear why its session is over: one that lets nothing be
/// sent would keep the stream for as long as its connection.
const FAREWELL: Duration = Duration::from_secs(2);

/// Attach as a method.
pub struct AttachMethod {
    broker: Arc<Broker>,
    supervisor: Supervisor,
}

impl AttachMethod {
    /// Attach over this state; sessions run under the supervisor.
    #[must_use]
    pub fn new(broker: Arc<Broker>, supervisor: Supervisor) -> Self {
        Self { broker, supervisor }
    }

    async fn open(
        &self,
        caller: Caller,
        mut inbound: Streaming<AttachRequest>,
    ) -> Result<ControlStream, Fault> {
        self.broker.may_attach(&caller.principal)?;
        let missing = || {
            Fault::new(Reason::FirstMessageMissing, "the first message must be hello, within 5 s")
        };
        let first = tokio::time::timeout(self.broker.limits.first_message, inbound.message())
            .await
            .map_err(|_| missing())?
            .map_err(|status| missing().caused_by(status))?;
        let Some(attach_request::Message::Hello(hello)) = first.and_then(|first| first.message)
        else {
            return Err(missing());
        };
        let introduction = hello::check(&caller.principal, hello)?;
        self.broker.yields_to(&introduction).await?;
        let sandbox = match caller.principal {
            Principal::Sandbox { project, execution, .. } => Some((project, execution)),
            _ => None,
        };
        let (control, queue) = mpsc::channel(CONTROL_QUEUE);
        let session = self.broker.attach(SessionSpec { introduction, sandbox, control })?;
        session.send(Message::Welcome(Welcome {
            session_id: session.id.to_string(),
            generation: session.generation,
            heartbeat: prost_types::Duration::try_from(self.broker.limits.heartbeat).ok(),
            broker_id: self.broker.id.to_string(),
            parked_target: self.broker.limits.parked_target,
            stream_window: self.broker.limits.stream_window,
        }));
        let (broker, watched) = (self.broker.clone(), session.clone());
        // Boxed, or the task holds it as it came and as it is read.
        let inbound = Box::new(inbound);
        let (cut, stop) = (StreamCut::current(), self.supervisor.token());
        self.supervisor.spawn("tunnel_session", async move {
            let fault = read(&watched, inbound, broker.limits.heartbeat).await;
            broker.detach(&watched, &fault);
            drop(watched);
            // A broker that stops ends all streams by itself, in its own time.
            let stops = tokio::time::timeout(FAREWELL, stop.cancelled()).await.is_ok();
            if let Some(cut) = cut.filter(|_| !stops) {
                cut.cut();
            }
        });
        Ok(ControlStream {
            queue,
            closed: Box::pin(session.closed().clone().cancelled_owned()),
            session,
            broker: self.broker.clone(),
            done: false,
        })
    }
}

impl Method for AttachMethod {
    async fn call(
        self: Arc<Self>,
        caller: Caller,
        request: Request<Body>,
    ) -> Result<Response<Body>, Fault> {
        let codec = SmallCodec::<AttachResponse, AttachRequest>::new();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
        Ok(grpc.streaming(Streams { method: self, caller }, request).await)
    }
}

/// What tonic's server half wants to call.
struct Streams {
    method: Arc<AttachMethod>,
    caller: Caller,
}

impl StreamingService<AttachRequest> for Streams {
    type Response = AttachResponse;
    type ResponseStream = ControlStream;
    type Future = BoxFuture<'static, Result<tonic::Response<ControlStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<AttachRequest>>) -> Self::Future {
        let (method, caller) = (self.method.clone(), self.caller.clone());
        Box::pin(async move {
            let agent = caller.principal.clone();
            let opened = method.open(caller, request.into_inner()).await;
            if let Err(fault) = &opened {
                audit::attach_refused(&agent, fault);
            }
            opened.map(tonic::Response::new).map_err(to_status)
        })
    }
}

/// Reads what the agent says until the session is over; gives why.
async fn read(
    session: &Arc<Session>,
    mut inbound: Box<Streaming<AttachRequest>>,
    interval: Duration,
) -> Fault {
    let mut heartbeat = Heartbeat::new(interval, clock::instant());
    // It does not move with each sign of life: one timer an interval, and not a
    // tick for each of thousands of sessions.
    let look = tokio::time::sleep_until(heartbeat.due().into());
    tokio::pin!(look);
    let mut nonce = 0;
    loop {
        tokio::select! {
            biased;
            () = session.closed().cancelled() => {
                return session.fault().unwrap_or_else(|| lost("the session was closed"));
            }
            message = inbound.message() => {
                // Its end is no sign of life.
                if matches!(message, Ok(Some(_))) {
                    session.life.mark();
                }
                match message {
                    Ok(Some(AttachRequest { message })) => match message {
                        Some(attach_request::Message::Ping(ping)) => {
                            session.send(Message::Pong(Pong { nonce: ping.nonce }));
                        }
                        Some(attach_request::Message::DialFailed(failed)) => {
                            let fault = wolfpack_tunnel::reasons::named(&failed.reason, &failed.message);
                            session.refuse(&failed.dial_id, fault);
                        }
                        Some(attach_request::Message::Pong(_)) | None => {}
                        Some(attach_request::Message::Hello(_)) => {
                            return Fault::new(Reason::RequestInvalid, "hello may come only first");
                        }
                    },
                    Ok(None) => return lost("the agent left"),
                    Err(status) => return lost("the control stream broke").caused_by(status),
                }
            }
            () = &mut look => {
                match heartbeat.check(clock::instant(), session.life.heard()) {
                    Life::Heard => {}
                    Life::Ask => {
                        nonce += 1;
                        session.send(Message::Ping(Ping { nonce }));
                    }
                    Life::Dead => return lost("the agent fell silent"),
                }
                look.as_mut().reset(heartbeat.due().into());
            }
        }
    }
}

fn lost(message: &str) -> Fault {
    Fault::new(Reason::TunnelLost, message)
}

/// What the agent is told. It ends with the fault of the session; when the
/// agent's stream goes away, the session does.
pub(super) struct ControlStream {
    queue: mpsc::Receiver<Box<AttachResponse>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    session: Arc<Session>,
    broker: Arc<Broker>,
    done: bool,
}

impl Stream for ControlStream {
    type Item = Result<AttachResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(Some(message)) = self.queue.poll_recv(cx) {
            return Poll::Ready(Some(Ok(*message)));
        }
        ready!(self.closed.as_mut().poll(cx));
        self.done = true;
        let fault = self.session.fault().unwrap_or_else(|| lost("the session was closed"));
        Poll::Ready(Some(Err(to_status(fault))))
    }
}

impl Drop for ControlStream {
    fn drop(&mut self) {
        self.broker.detach(&self.session, &lost("the agent's connection is gone"));
    }
}

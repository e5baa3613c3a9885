//! One Carry stream of an agent, from parking to the end of its connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use wolfpack_proto::tunnel::v1::{
    CarryRequest, CarryResponse, Open, Park, carry_request, carry_response,
};
use wolfpack_rpc::Hold;
use wolfpack_rpc::error::from_status;
use wolfpack_runtime::trace_context;
use wolfpack_types::{Fault, Reason};

use super::carry_body::{CarryControl, CarryRequestBody, Source};
use super::dials::PendingDial;
use super::exports::Export;
use super::listener::TunnelIo;
use super::session::Session;
use super::socket;
use super::target::TunnelPeer;
use crate::grpc;
use crate::protocol::{DataMode, encode};
use crate::stream::{
    ByteStream, Incoming, Item, Late, Leftover, Pipe, Read, Returning, late_message, reset,
};

/// How long a target may take when the broker names no time.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a caller may go on sending after the target has said all and left.
const LINGER: Duration = Duration::from_secs(60);

/// How a stream ended before it had a connection.
#[derive(Debug)]
pub(super) enum Ended {
    /// It served a connection, which is over or in the hands of the program.
    Served,
    /// The broker retired it.
    Retired,
    /// It was cancelled here.
    Cancelled,
    /// The broker refused it or it broke.
    Failed(Fault),
}

/// Opens a stream that answers the dial `dial_id`, or parks when that is empty,
/// and serves the connection it is given. `cancel` ends it while it waits;
/// `pending` is taken once it has one.
pub(super) async fn carry(
    session: &Arc<Session>,
    pending: &mut Option<PendingDial>,
    dial_id: Bytes,
    cancel: &CancellationToken,
) -> Ended {
    let parked = dial_id.is_empty().then(|| session.count_parked());
    let park = Park { session_id: session.id.clone(), dial_id };
    let park = CarryRequest { frame: Some(carry_request::Frame::Park(park)) };
    let (body, control) = CarryRequestBody::new(encode::message(&park));
    let waiting = open_of(session, body);
    let opened = tokio::select! {
        opened = waiting => opened,
        () = cancel.cancelled() => {
            control.retire();
            return Ended::Cancelled;
        }
    };
    let (open, incoming) = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => {
            control.retire();
            return Ended::Retired;
        }
        Err(fault) => {
            control.retire();
            return Ended::Failed(fault);
        }
    };
    drop((parked, pending.take()));
    session.used();
    let Some(_connection) = session.admit() else {
        let fault =
            Fault::new(Reason::DialsLimited, "the agent has as many connections as it takes");
        refuse(fault, incoming, &control).await;
        return Ended::Served;
    };
    let span = tracing::info_span!(
        "tunnel.connection",
        otel.kind = "server",
        connection_id = open.connection_id,
        target = open.target,
        caller = open.caller,
    );
    trace_context::set_parent(&span, &open.traceparent);
    serve(session, open, incoming, &control, span).await;
    Ended::Served
}

/// Sends the request and waits until the broker gives it work; `None` when the
/// broker retires it.
async fn open_of(
    session: &Session,
    body: CarryRequestBody,
) -> Result<Option<(Open, Incoming)>, Fault> {
    let request = grpc::request(grpc::CARRY_PATH, body);
    let response = session.channel.open(request).await.map_err(|status| from_status(&status))?;
    if let Some(status) = grpc::failure(response.headers()) {
        return Err(from_status(&status));
    }
    session.arrived();
    let mut incoming = Incoming::new(response.into_body(), DataMode::Payload);
    incoming.set_life(session.life.clone());
    match incoming.next().await {
        Ok(Item::Message(bytes)) => {
            match CarryResponse::decode(bytes).ok().and_then(|message| message.frame) {
                Some(carry_response::Frame::Open(open)) => Ok(Some((open, incoming))),
                _ => Err(reset("the broker sent another frame than open")),
            }
        }
        Ok(Item::Data(_)) => Err(reset("the broker sent data before open")),
        Ok(Item::End(Some(status))) if status.code() == tonic::Code::Ok => Ok(None),
        Ok(Item::End(Some(status))) => Err(from_status(&status)),
        Ok(Item::End(None)) => Err(reset("the broker ended the stream")),
        Err(error) => Err(reset("the stream to the broker broke").caused_by(error)),
    }
}

/// Connects the target and, for a socket, runs the connection to its end. The
/// span lasts as long, and only the dial runs inside it: to enter and leave it
/// costs more than to pass a frame on.
async fn serve(
    session: &Session,
    open: Open,
    incoming: Incoming,
    control: &CarryControl,
    span: Span,
) {
    let timeout = open
        .timeout
        .and_then(|timeout| Duration::try_from(timeout).ok())
        .filter(|timeout| !timeout.is_zero())
        .unwrap_or(DIAL_TIMEOUT);
    let peer = TunnelPeer {
        caller: open.caller,
        connection_id: open.connection_id,
        traceparent: span.in_scope(trace_context::current_traceparent).unwrap_or(open.traceparent),
        target: open.target,
    };
    let (target, export) = match session.exports.find(&peer.target) {
        Ok(found) => found,
        Err(fault) => return refuse(fault, incoming, control).await,
    };
    tracing::debug!(parent: &span, %target, caller = peer.caller, "connection");
    match export {
        Export::Listener(sender) => {
            let permit = match tokio::time::timeout(timeout, sender.reserve()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => {
                    let fault =
                        Fault::new(Reason::TargetUnreachable, "nothing serves this target now");
                    return refuse(fault, incoming, control).await;
                }
                Err(_) => {
                    let fault =
                        Fault::new(Reason::DialTimeout, "the target did not accept in time");
                    return refuse(fault, incoming, control).await;
                }
            };
            let pipe = Arc::new(Pipe::default());
            control.serve(Source::Pipe(pipe.clone()));
            let (leftover, left) = oneshot::channel();
            let taken = control.clone();
            let returning = Returning::new(leftover, move || taken.settle(Ok(())));
            let stream = ByteStream::returning(incoming, open.early_data, pipe, returning);
            permit.send(TunnelIo::new(stream, peer));
            if let Ok(left) = left.await {
                linger(left, control).await;
            }
            control.finished().await;
        }
        Export::Dialed(dialer) => {
            let dialed = tokio::select! {
                dialed = tokio::time::timeout(timeout, dialer.dial(&target, &peer).instrument(span.clone())) => dialed,
                () = control.gone().cancelled() => return,
            };
            let fault = match dialed {
                Ok(Ok(stream)) => {
                    return socket::serve(stream, open.early_data, incoming, control).await;
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::new(Reason::DialTimeout, "the target did not answer in time"),
            };
            refuse(fault, incoming, control).await;
        }
    }
}

/// Tells the broker why there is no connection, and waits until it has heard,
/// not for ever.
async fn refuse(fault: Fault, incoming: Incoming, control: &CarryControl) {
    control.refuse(&fault);
    let cut = async {
        control.finished().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = to_end(incoming) => {}
        () = cut => {}
    }
}

/// What it is to a caller that the target does not read what it sent.
pub(super) fn left_early() -> Fault {
    reset("the target left before it took all that was sent")
}

/// What the caller still does once the program has left: a fin is well, more
/// bytes are lost. A caller that does neither for a while is cut off.
async fn linger(left: Leftover, control: &CarryControl) {
    let Leftover { mut incoming, read } = left;
    let rest = async {
        match read {
            Read::All => return Ok(()),
            Read::NotAll => return Err(left_early()),
            Read::SoFar => {}
        }
        match incoming.next().await {
            Ok(Item::Message(bytes)) => match late_message(bytes) {
                Late::Fin => Ok(()),
                _ => Err(left_early()),
            },
            _ => Err(left_early()),
        }
    };
    let cut = async {
        control.said().await;
        tokio::time::sleep(LINGER).await;
    };
    let settled = tokio::select! {
        rest = rest => rest,
        () = cut => Err(left_early()),
    };
    control.settle(settled);
    to_end(incoming).await;
}

/// Reads what still comes to its end, and drops it: letting go of the response
/// before would reset the stream, and what is on its way to the caller would
/// be lost, however slowly that reads.
pub(super) async fn to_end(mut incoming: Incoming) {
    while !matches!(incoming.next().await, Ok(Item::End(_)) | Err(_)) {}
}

impl Session {
    /// A connection slot, given back when it is dropped; `None` when all are
    /// taken.
    fn admit(&self) -> Option<ConnectionSlot> {
        let connections = self.connections.clone();
        connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.max_connections).then_some(count + 1)
            })
            .ok()?;
        Some(ConnectionSlot { count: connections, _ahead: self.channel.hold() })
    }
}

/// One connection that counts.
struct ConnectionSlot {
    count: Arc<std::sync::atomic::AtomicU32>,
    /// Its part of what may be sent ahead to this agent.
    _ahead: Option<Hold>,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

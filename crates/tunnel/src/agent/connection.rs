//! One connection of an agent's stream: its target is reached, or it is said why
//! not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::Permit;
use tokio::sync::oneshot;
use tracing::Instrument as _;
use wolfpack_proto::tunnel::v1::Open;
use wolfpack_runtime::trace_context;
use wolfpack_types::{Fault, Reason};

use super::carry::Waiting;
use super::carry_body::{CarryControl, Source};
use super::exports::Export;
use super::listener::TunnelIo;
use super::session::Session;
use super::socket;
use super::target::TunnelPeer;
use crate::stream::{
    ByteStream, Incoming, IncomingError, Item, Late, Leftover, Pipe, Read, Returning, late_message,
    reset,
};

/// How long a target may take when the broker names no time.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a caller may go on sending after the target has said all and left.
const LINGER: Duration = Duration::from_secs(60);

/// Connects the target and, for a socket, runs the connection to its end. The
/// span lasts as long, and only the dial runs inside it: to enter and leave it
/// costs more than to pass a frame on. Gives the stream back where it is parked
/// again.
pub(super) async fn connect(session: &Session, open: Open, stream: Waiting) -> Option<Waiting> {
    let Waiting { incoming, control, read: _ } = stream;
    let control = &control;
    let span = tracing::info_span!(
        "tunnel.connection",
        otel.kind = "server",
        connection_id = open.connection_id,
        target = open.target,
        caller = open.caller,
    );
    trace_context::set_parent(&span, &open.traceparent);
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
    let early = open.early_data;
    let (target, export) = match session.exports.find(&peer.target) {
        Ok(found) => found,
        Err(fault) => {
            refuse(fault, incoming, control).await;
            return None;
        }
    };
    tracing::debug!(parent: &span, %target, caller = peer.caller, "connection");
    let fault = match export {
        Export::Listener(sender) => match tokio::time::timeout(timeout, sender.reserve()).await {
            Ok(Ok(permit)) => {
                program(permit, peer, early, incoming, control).await;
                return None;
            }
            Ok(Err(_)) => Fault::new(Reason::TargetUnreachable, "nothing serves this target now"),
            Err(_) => Fault::new(Reason::DialTimeout, "the target did not accept in time"),
        },
        Export::Dialed(dialer) => {
            let dial = dialer.dial(&target, &peer).instrument(span.clone());
            let dialed = tokio::select! {
                dialed = tokio::time::timeout(timeout, dial) => dialed,
                () = control.gone().cancelled() => return None,
            };
            match dialed {
                Ok(Ok(stream)) => {
                    let again = open.may_park_again;
                    let socket = (stream, session.channel.budget());
                    return socket::serve(socket, early, incoming, control, again).await;
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::new(Reason::DialTimeout, "the target did not answer in time"),
            }
        }
    };
    refuse(fault, incoming, control).await;
    None
}

/// Gives the connection to the program, and waits until it has left. The program
/// may hold on to what it has read to the end, so the stream is not parked again.
async fn program(
    permit: Permit<'_, TunnelIo>,
    peer: TunnelPeer,
    early: Bytes,
    incoming: Incoming,
    control: &CarryControl,
) {
    let pipe = Arc::new(Pipe::default());
    control.serve(Source::Pipe(pipe.clone()));
    let (leftover, left) = oneshot::channel();
    let taken = control.clone();
    let returning = Returning::new(leftover, move || taken.settle(Ok(())));
    let stream = ByteStream::returning(incoming, early, pipe, returning);
    permit.send(TunnelIo::new(stream, peer));
    if let Ok(left) = left.await {
        linger(left, control).await;
    }
    control.finished().await;
}

/// Tells the broker why there is no connection, and waits until it has heard,
/// not for ever.
pub(super) async fn refuse(fault: Fault, incoming: Incoming, control: &CarryControl) {
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
    while !is_end(&incoming.next().await) {}
}

/// Whether nothing comes after it.
pub(super) fn is_end(item: &Result<Item, IncomingError>) -> bool {
    matches!(item, Ok(Item::End(_)) | Err(_))
}

//! One Carry stream of an agent: parked, then with one connection after the
//! other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use wolfpack_proto::tunnel::v1::{
    CarryRequest, CarryResponse, Open, Park, carry_request, carry_response,
};
use wolfpack_rpc::Hold;
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason};

use super::carry_body::{CarryControl, CarryRequestBody};
use super::connection::{connect, refuse};
use super::dials::PendingDial;
use super::session::Session;
use crate::grpc;
use crate::protocol::{DataMode, encode};
use crate::stream::{Incoming, IncomingError, Item, reset};

/// How a stream ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With its last connection, which is over or in the hands of the program.
    Served,
    /// The broker retired it.
    Retired,
    /// It was cancelled here.
    Cancelled,
    /// The broker refused it, or it broke while it was parked.
    Failed(Fault),
}

/// A stream that waits for work.
pub(super) struct Waiting {
    pub(super) incoming: Incoming,
    pub(super) control: CarryControl,
    /// What was read of it already.
    pub(super) read: Option<Item>,
}

impl Waiting {
    async fn next(&mut self) -> Result<Item, IncomingError> {
        match self.read.take() {
            Some(item) => Ok(item),
            None => self.incoming.next().await,
        }
    }
}

/// Opens a stream that answers the dial `dial_id`, or parks when that is empty,
/// and serves the connections it is given. `cancel` ends it while it waits;
/// `pending` is taken once it has a connection.
pub(super) async fn carry(
    session: &Arc<Session>,
    pending: &mut Option<PendingDial>,
    dial_id: Bytes,
    cancel: &CancellationToken,
) -> Ended {
    let mut parked = dial_id.is_empty().then(|| session.parked());
    let park = Park { session_id: session.id.clone(), dial_id };
    let park = CarryRequest { frame: Some(carry_request::Frame::Park(park)) };
    let (body, control) = CarryRequestBody::new(encode::message(&park));
    let opening = tokio::select! {
        opening = opening(session, body) => opening,
        () = cancel.cancelled() => {
            control.retire();
            return Ended::Cancelled;
        }
    };
    let mut waiting = match opening {
        Ok(incoming) => Waiting { incoming, control, read: None },
        Err(fault) => {
            control.retire();
            return Ended::Failed(fault);
        }
    };
    loop {
        let open = tokio::select! {
            open = next_open(&mut waiting) => open,
            () = cancel.cancelled() => {
                waiting.control.retire();
                return Ended::Cancelled;
            }
        };
        let open = match open {
            Ok(Some(open)) => open,
            ended => {
                waiting.control.retire();
                return ended.map_or_else(Ended::Failed, |_| Ended::Retired);
            }
        };
        drop((parked.take(), pending.take()));
        session.used();
        let Some(again) = serve(session, open, waiting).await else { return Ended::Served };
        waiting = again;
        parked = Some(session.park_again());
    }
}

/// Serves one connection; gives the stream back if it is parked again.
async fn serve(session: &Session, open: Open, stream: Waiting) -> Option<Waiting> {
    let Some(_connection) = session.admit() else {
        let fault =
            Fault::new(Reason::DialsLimited, "the agent has as many connections as it takes");
        refuse(fault, stream.incoming, &stream.control).await;
        return None;
    };
    connect(session, open, stream).await
}

/// Sends the request and waits until the broker has taken it.
async fn opening(session: &Session, body: CarryRequestBody) -> Result<Incoming, Fault> {
    let _opening = session.opening();
    let request = grpc::request(grpc::CARRY_PATH, body);
    let response = session.channel.open(request).await.map_err(|status| from_status(&status))?;
    if let Some(status) = grpc::failure(response.headers()) {
        return Err(from_status(&status));
    }
    session.arrived();
    let mut incoming = Incoming::new(response.into_body(), DataMode::Payload);
    incoming.set_life(session.life.clone());
    Ok(incoming)
}

/// Waits until the broker gives the stream work; `None` when it retires it.
async fn next_open(waiting: &mut Waiting) -> Result<Option<Open>, Fault> {
    match waiting.next().await {
        Ok(Item::Message(bytes)) => {
            match CarryResponse::decode(bytes).ok().and_then(|message| message.frame) {
                Some(carry_response::Frame::Open(open)) => Ok(Some(open)),
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

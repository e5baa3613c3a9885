//! One connection of an exposure, from its socket to its target.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;
use wolfpack_runtime::rarely::unless;
use wolfpack_types::{Fault, Reason};

use super::audit::Visitor;
use super::book::{Exposure, Exposures};
use crate::connect::{Counting, Dialing, Head, Opened, link, park};
use crate::domain::access::not_found;
use crate::state::Counted;

/// A place among the connections of an exposure; given back when it is dropped.
pub(super) struct Slot(Arc<AtomicU32>);

impl Slot {
    pub(super) fn take(connections: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < most).then_some(count + 1)
            })
            .ok()?;
        Some(Self(connections.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes the close of a socket a reset: whoever reads there must not take it
/// for the end of what was sent.
pub(super) fn reset(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Carries a connection of `client` to its end.
pub(super) async fn run(
    book: Arc<Exposures>,
    exposure: Arc<Exposure>,
    (mut socket, client): (TcpStream, SocketAddr),
    slot: Slot,
) {
    let visitor = Visitor::new(exposure.clone(), client);
    let counting = Counting::of(&book.metrics);
    let opened = tokio::select! {
        opened = dial(&book, &exposure, &mut socket) => opened,
        () = exposure.ended.cancelled() => Err(ended()),
    };
    counting.end(opened.as_ref().err());
    let Reached { id, counted, opened: Opened { session, permit, carry, .. }, early } = match opened
    {
        Ok(reached) => reached,
        Err(fault) => {
            note(&book, &exposure, &fault);
            visitor.refused(&fault);
            return reset(&socket);
        }
    };
    let (held, visit) = ((counted, permit), visitor.opened(id));
    let (notes, of) = (book.clone(), exposure.clone());
    let link = link(&book.broker, &book.metrics, &session, held, early, move |end| {
        if let Some(fault) = &end.fault {
            note(&notes, &of, fault);
        }
        visit.ended(end);
        drop(slot);
    });
    let weak = link.downgrade();
    let carried = carry.splice_socket(
        link,
        (socket, book.broker.budget.clone()),
        Some(park(&book.broker, &session)),
    );
    tokio::pin!(carried);
    let until_end = exposure.ended.clone().cancelled_owned();
    if unless(until_end, &mut carried).await.is_none() {
        weak.abort(ended());
        carried.await;
    }
}

/// Tells the owner of an exposure what ended a connection, unless the endpoint is
/// another's by now: what happens there is not theirs to know.
fn note(book: &Exposures, exposure: &Exposure, fault: &Fault) {
    if book.owner_stays(exposure) {
        exposure.failures.note(fault);
    }
}

/// A connection whose target was reached.
struct Reached {
    /// Names the connection, here and at the agent.
    id: String,
    counted: Counted,
    opened: Opened,
    /// Bytes that went with the dial.
    early: usize,
}

async fn dial(
    book: &Exposures,
    exposure: &Exposure,
    socket: &mut TcpStream,
) -> Result<Reached, Fault> {
    let broker = &book.broker;
    broker.not_draining()?;
    let counted = broker.count()?;
    let allowed = || match book.owner_stays(exposure) {
        true => Ok(()),
        false => Err(not_found(&exposure.spec.endpoint)),
    };
    let dialing = Dialing {
        broker,
        endpoint: exposure.spec.endpoint.clone(),
        allowed: &allowed,
        target: exposure.spec.target.clone(),
        deadline: Instant::now() + broker.limits.dial_timeout,
        caller: exposure.spec.id.name(),
        connection_id: uuid::Uuid::now_v7().simple().to_string(),
        traceparent: String::new(),
    };
    let mut head = Head::of(socket);
    head.present()?;
    let opened = dialing.run(&mut head).await?;
    let early = head.bytes().len();
    Ok(Reached { id: dialing.connection_id, counted, opened, early })
}

fn ended() -> Fault {
    Fault::new(Reason::Cancelled, "the exposure has ended; create it again to go on")
}

//! The agent's direction of a connection whose caller is a socket of the broker.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;
use wolfpack_types::Fault;

use super::again::Again;
use super::link::{Direction, Link};
use super::relay::{Tail, broken, caller_left, parked_early, poll_tail};
use crate::protocol::DataMode;
use crate::reasons;
use crate::stream::{Incoming, PumpError, Taken, pump, reset};

/// A direction that ends with whoever carries it.
struct Over(Link);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over(Direction::Down);
    }
}

/// The writing half of the socket: as long as it is not done, its drop is a reset.
/// A close would look like a clean end to whoever reads there.
struct Resetting(Option<OwnedWriteHalf>);

impl Resetting {
    /// All was written: the close is an end.
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            let _ = socket2::SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
            half.forget();
        }
    }
}

/// Writes what the agent sends to the socket, to the end of the connection. Where
/// the agent parks its stream `again` then, that goes back.
pub(super) async fn write(
    link: Link,
    writer: OwnedWriteHalf,
    mut incoming: Incoming,
    again: Option<Again>,
) {
    let over = Over(link);
    let link = &over.0;
    incoming.set_mode(DataMode::Payload);
    let mut writer = Resetting(Some(writer));
    let Some(half) = &mut writer.0 else { return };
    let ended = tokio::select! {
        ended = carried(link, half, &mut incoming, again.is_some()) => ended,
        fault = link.aborted(Direction::Down) => Err(fault),
    };
    match (ended, again) {
        (Ok(Tail::Parked), Some(again)) => {
            again.give(link, incoming);
            writer.done();
        }
        (Ok(_), _) => writer.done(),
        (Err(fault), _) => link.abort(fault),
    }
}

async fn carried(
    link: &Link,
    writer: &mut OwnedWriteHalf,
    incoming: &mut Incoming,
    may_park: bool,
) -> Result<Tail, Fault> {
    let count = |bytes| {
        link.count(Direction::Down, bytes);
        link.pace(Direction::Down, bytes)
    };
    match pump(writer, Bytes::new(), incoming, count).await {
        Ok(Taken::All) => {}
        Ok(Taken::Part) => return Err(caller_left()),
        Err(error) => return Err(fault_of(error)),
    }
    link.finished(Direction::Down);
    let tail = std::future::poll_fn(|cx| poll_tail(incoming, may_park, cx)).await?;
    if tail == Tail::Parked && !link.way(Direction::Up).finished {
        return Err(parked_early());
    }
    Ok(tail)
}

fn fault_of(error: PumpError) -> Fault {
    match error {
        PumpError::Reset(frame) => reasons::from_reset(&frame),
        PumpError::Ended(_) => reset("the agent ended the connection; dial again"),
        PumpError::Broken(error) => broken(error),
        PumpError::Protocol => reset("a frame came that does not belong here; dial again"),
        PumpError::Socket(error) => caller_left().caused_by(error),
    }
}

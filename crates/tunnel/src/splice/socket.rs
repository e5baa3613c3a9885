//! The agent's direction of a connection whose caller is a socket of the broker.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;
use wolfpack_runtime::rarely::until;
use wolfpack_types::Fault;

use super::again::Again;
use super::client::{Lent, left};
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
    /// All was written, and the socket told so: the close is an end.
    fn done(mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
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
    let writer = Resetting(Some(writer));
    let Some(socket) = writer.0.as_ref().map(AsRef::as_ref) else { return };
    let cut = async {
        tokio::select! {
            fault = link.aborted(Direction::Down) => fault,
            fault = left(link, socket) => fault,
        }
    };
    let ended = until(cut, carried(link, Lent(socket), &mut incoming, again.is_some())).await;
    match (ended.unwrap_or_else(Err), again) {
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
    mut writer: Lent<'_>,
    incoming: &mut Incoming,
    may_park: bool,
) -> Result<Tail, Fault> {
    let count = |bytes| {
        link.count(Direction::Down, bytes);
        link.pace(Direction::Down, bytes)
    };
    match pump(&mut writer, Bytes::new(), incoming, count).await {
        Ok(Taken::All) => {}
        Ok(Taken::Part) => return Err(caller_left()),
        Err(error) => return Err(fault_of(error)),
    }
    link.finished(Direction::Down);
    let tail = std::future::poll_fn(|cx| poll_tail(incoming, may_park, cx)).await?;
    if tail == Tail::Parked {
        if !link.way(Direction::Up).ended {
            return Err(parked_early());
        }
        // The fin has left, and who sent it comes back to say so: that wakes whoever
        // watches the link, which this task does beside this.
        let sent = |_: &mut Context<'_>| match link.way(Direction::Up).finished {
            true => Poll::Ready(()),
            false => Poll::Pending,
        };
        std::future::poll_fn(sent).await;
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

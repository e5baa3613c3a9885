//! The agent's direction of a connection whose caller is a socket of the broker.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;
use wolfpack_types::Fault;

use super::link::{Direction, Link};
use super::relay::{broken, caller_left, poll_tail};
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

/// Writes what the agent sends to the socket, to the end of the connection.
pub(super) async fn write(link: Link, writer: OwnedWriteHalf, mut incoming: Incoming) {
    let over = Over(link);
    let link = &over.0;
    incoming.set_mode(DataMode::Payload);
    let mut writer = Resetting(Some(writer));
    let Some(half) = &mut writer.0 else { return };
    let ended = tokio::select! {
        ended = carried(link, half, &mut incoming) => ended,
        fault = link.aborted(Direction::Down) => Err(fault),
    };
    match ended {
        Ok(()) => writer.done(),
        Err(fault) => link.abort(fault),
    }
}

async fn carried(
    link: &Link,
    writer: &mut OwnedWriteHalf,
    incoming: &mut Incoming,
) -> Result<(), Fault> {
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
    std::future::poll_fn(|cx| poll_tail(incoming, cx)).await
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

//! A connection whose target is a socket.

use bytes::Bytes;
use wolfpack_rpc::ByteBudget;
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason};

use super::carry::Waiting;
use super::carry_body::{CarryControl, Source};
use super::connection::{is_end, left_early, to_end};
use super::target::TargetStream;
use crate::stream::{Incoming, PumpError, SocketReader, Taken, cut_off, pump, reset};

/// Runs a connection to a socket: the body reads it, this task writes it. Where
/// the stream may be parked `again` and is, gives it back.
pub(super) async fn serve(
    (stream, budget): (TargetStream, ByteBudget),
    early: Bytes,
    mut incoming: Incoming,
    control: &CarryControl,
    again: bool,
) -> Option<Waiting> {
    let TargetStream { reader, mut writer } = stream;
    let source = Source::Socket(SocketReader::new(reader, budget));
    if again {
        control.serve_and_park(source);
    } else {
        control.serve(source);
    }
    let result = tokio::select! {
        result = pump(&mut writer, early, &mut incoming, |_| None) => result,
        () = control.gone().cancelled() => return None,
    };
    let whole = matches!(result, Ok(Taken::All));
    match result {
        Ok(Taken::All) => control.settle(Ok(())),
        // It may still have something to say, and the body tells when it has.
        Ok(Taken::Part) => control.settle(Err(left_early())),
        Err(error) => control.refuse(&fault_of(error)),
    }
    drop(writer);
    let mut ended = false;
    if again && whole {
        let read = tokio::select! {
            biased;
            () = control.finished() => None,
            item = incoming.next() => Some(item),
        };
        ended = read.as_ref().is_some_and(is_end);
        // It is parked before the broker can say anything of the next connection,
        // which may have come between the two looks.
        if !ended && let Some(control) = control.next() {
            return Some(Waiting { incoming, control, read: read.and_then(Result::ok) });
        }
    }
    if !ended {
        to_end(incoming).await;
    }
    control.finished().await;
    if let Some(parked) = control.next() {
        parked.retire();
    }
    None
}

fn fault_of(error: PumpError) -> Fault {
    match error {
        PumpError::Reset(frame) => crate::reasons::from_reset(&frame),
        PumpError::Ended(Some(status)) => from_status(&status),
        PumpError::Ended(None) => reset("the connection was cut"),
        PumpError::Broken(error) => cut_off(error),
        PumpError::Protocol => reset("the broker broke the protocol"),
        PumpError::Socket(error) => {
            Fault::new(Reason::ConnectionReset, "the target broke the connection").caused_by(error)
        }
    }
}

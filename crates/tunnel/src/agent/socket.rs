//! A connection whose target is a socket.

use bytes::Bytes;
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason};

use super::carry::{left_early, to_end};
use super::carry_body::{CarryControl, Source};
use super::target::TargetStream;
use crate::stream::{Incoming, PumpError, SocketReader, Taken, cut_off, pump, reset};

/// Runs a connection to a socket: the body reads it, this task writes it.
pub(super) async fn serve(
    stream: TargetStream,
    early: Bytes,
    mut incoming: Incoming,
    control: &CarryControl,
) {
    let TargetStream { reader, mut writer } = stream;
    control.serve(Source::Socket(SocketReader::new(reader)));
    let result = tokio::select! {
        result = pump(&mut writer, early, &mut incoming, |_| None) => result,
        () = control.gone().cancelled() => return,
    };
    match result {
        Ok(Taken::All) => control.settle(Ok(())),
        // It may still have something to say, and the body tells when it has.
        Ok(Taken::Part) => control.settle(Err(left_early())),
        Err(error) => control.refuse(&fault_of(error)),
    }
    drop(writer);
    to_end(incoming).await;
    control.finished().await;
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

//! One connection at one of its two ends: frames in, frames out.

mod blocks;
mod byte_stream;
mod incoming;
mod pipe;
mod pump;
mod socket;

pub(crate) use byte_stream::{ByteStream, Leftover, Read, Returning, byte_stream_io};
pub(crate) use incoming::{Incoming, IncomingError, Item, Late, late_message};
pub(crate) use pipe::{Pipe, Take};
pub(crate) use pump::{PumpError, Taken, pump};
pub(crate) use socket::SocketReader;

use wolfpack_types::{Fault, Reason};

/// Reads this large are followed by a pause of the stream, so that others of
/// the same connection get their turn before it fills its whole window.
pub(crate) const LARGE: usize = 8 * 1024;

/// A connection that broke without a reason from the other side.
pub(crate) fn reset(message: &str) -> Fault {
    Fault::new(Reason::ConnectionReset, message)
}

/// What it is to an agent that a stream broke: the broker resets one whose
/// caller has left.
pub(crate) fn cut_off(error: IncomingError) -> Fault {
    let given_up = error.h2().and_then(h2::Error::reason) == Some(h2::Reason::CANCEL);
    let fault = match given_up {
        true => Fault::new(Reason::Cancelled, "the other side gave the connection up"),
        false => reset("the connection was cut"),
    };
    fault.caused_by(error)
}

/// What a fault of a connection is to code that reads and writes bytes: never
/// an end of file.
pub(crate) fn io_error(fault: Fault) -> std::io::Error {
    use std::io::ErrorKind;
    let kind = match fault.reason {
        Reason::DialTimeout | Reason::DeadlineExceeded => ErrorKind::TimedOut,
        Reason::Cancelled => ErrorKind::ConnectionAborted,
        Reason::TargetForbidden | Reason::EndpointForbidden => ErrorKind::PermissionDenied,
        Reason::TargetUnreachable | Reason::EndpointNotFound => ErrorKind::ConnectionRefused,
        _ => ErrorKind::ConnectionReset,
    };
    std::io::Error::new(kind, fault)
}

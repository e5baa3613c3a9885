//! Exit codes by kind of error; the table that `--help` shows.

use std::process::ExitCode;

use wolfpack_types::{Code, Reason};

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// `wolfpack doctor` found something that fails.
pub const UNWELL: Exit = Exit(1);
/// Bad arguments, or a request that breaks a rule.
pub const USAGE: Exit = Exit(64);
/// The state of the thing does not allow it.
pub const STATE: Exit = Exit(65);
/// There is no such thing.
pub const NOT_FOUND: Exit = Exit(66);
/// The key is missing or wrong.
pub const UNAUTHENTICATED: Exit = Exit(67);
/// The server, or what it needs, does not answer.
pub const UNAVAILABLE: Exit = Exit(69);
/// A fault of the server.
pub const INTERNAL: Exit = Exit(70);
/// It exists already, or changed meanwhile.
pub const CONFLICT: Exit = Exit(73);
/// A local file or terminal cannot be used.
pub const IO: Exit = Exit(74);
/// No room, or too many requests; later it may work.
pub const EXHAUSTED: Exit = Exit(75);
/// The key may not do this.
pub const FORBIDDEN: Exit = Exit(77);
/// It took longer than it may.
pub const TIMEOUT: Exit = Exit(124);
/// Interrupted.
pub const INTERRUPTED: Exit = Exit(130);

/// Asked to end, as a shell tells of a SIGTERM.
pub const TERMINATED: Exit = Exit(143);
/// The terminal has gone, as a shell tells of a SIGHUP.
pub const HUNG_UP: Exit = Exit(129);
/// Nobody reads the output any more; as a shell tells of a SIGPIPE.
pub const READER_GONE: Exit = Exit(141);

/// The table for `--help`.
pub const TABLE: &str = "\
Exit codes:
    0  done
    1  'wolfpack doctor' found something that fails
   64  bad arguments, or the request breaks a rule
   65  the state of the thing does not allow it, or the sandbox failed to start
   66  there is no such thing
   67  the API key is missing or wrong
   69  the server, or what it needs, does not answer
   70  a fault of the server
   73  it exists already, or changed meanwhile
   74  a local file or terminal cannot be used
   75  no room now, or too many requests: later it may work
   77  the API key may not do this
  124  it took longer than it may
  130  interrupted
  141  the reader of the output has gone
  143  told to end, by SIGTERM (129: by SIGHUP)
'wolfpack sandbox exec' exits with the code of the program it ran, once that ran.";

/// The exit code of a reason.
#[must_use]
pub fn of(reason: Reason) -> Exit {
    match reason.code() {
        Code::InvalidArgument | Code::OutOfRange => USAGE,
        Code::FailedPrecondition => STATE,
        Code::NotFound => NOT_FOUND,
        Code::Unauthenticated => UNAUTHENTICATED,
        Code::PermissionDenied => FORBIDDEN,
        Code::ResourceExhausted => EXHAUSTED,
        Code::AlreadyExists | Code::Aborted => CONFLICT,
        Code::Unavailable => UNAVAILABLE,
        Code::DeadlineExceeded => TIMEOUT,
        Code::Cancelled => INTERRUPTED,
        Code::Internal | Code::Unknown | Code::Unimplemented => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_that_the_table_shows() {
        for reason in Reason::ALL {
            let Exit(code) = of(*reason);
            assert_ne!(code, 0, "{reason}");
            assert!(TABLE.contains(&format!("{code:>5}  ")), "{reason}: {code}");
        }
    }
}

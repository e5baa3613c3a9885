//! Signals that the engine sends to PID 1 and that are meant for the main
//! process.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

/// What is passed on. A signal that PID 1 does not listen for never arrives,
/// not even with its default effect. SIGCHLD is the reaper's; SIGTSTP and its
/// kin belong to terminals, and the main process has its own session.
const FORWARDED: [Signal; 8] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::CONT,
];

/// Listens for the signals that are passed on.
#[derive(Debug)]
pub struct Signals {
    listeners: Vec<(Signal, Listener)>,
}

impl Signals {
    /// Begins to listen; from here on these signals no longer end this process.
    ///
    /// # Errors
    /// When the runtime cannot register them.
    pub fn listen() -> io::Result<Self> {
        let listeners = FORWARDED
            .into_iter()
            .map(|number| Ok((number, signal(SignalKind::from_raw(number.as_raw()))?)))
            .collect::<io::Result<_>>()?;
        Ok(Self { listeners })
    }

    /// The next signal. Equal ones that come at once may be one. Dropping the
    /// future loses none.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (number, listener) in &mut self.listeners {
                if listener.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Whether a signal asks the whole sandbox to stop: the main process may ignore
/// it, the container may not.
#[must_use]
pub fn asks_to_stop(signal: Signal) -> bool {
    signal == Signal::TERM
}

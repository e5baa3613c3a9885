//! From the caller to a program's input.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use rustix::process::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use wolfpack_types::Fault;

use super::Input;
use crate::init::Reaper;
use crate::process::Terminal;

/// Where input goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// The program's stdin; `None` once it is closed.
    Pipe(Option<pipe::Sender>),
    /// Its terminal, and whether the line typed last is unfinished.
    Terminal(Arc<Terminal>, bool),
}

impl Sink {
    /// Waits while the program does not read. A program that has closed its
    /// stdin is no error: what is for it is thrown away from then on.
    async fn write(&mut self, bytes: &Bytes) {
        match self {
            Self::Pipe(None) => {}
            Self::Pipe(slot) => {
                if let Some(pipe) = slot
                    && pipe.write_all(bytes).await.is_err()
                {
                    *slot = None;
                }
            }
            Self::Terminal(terminal, line_has_begun) => {
                if let Some(last) = bytes.last() {
                    *line_has_begun = !matches!(last, b'\n' | b'\r');
                    let _ = terminal.write_all(bytes).await;
                }
            }
        }
    }

    async fn close(&mut self) {
        match self {
            Self::Pipe(pipe) => *pipe = None,
            Self::Terminal(terminal, line_has_begun) => {
                let end = terminal.end_of_input(*line_has_begun);
                *line_has_begun = false;
                let _ = terminal.write_all(&end).await;
            }
        }
    }
}

/// Carries input to the program until the stream ends, which ends its stdin.
///
/// # Errors
/// The first fault of the stream; the caller must then end the program, and keep
/// the sink until it was told to: to the program its end is that of its input.
pub(super) async fn feed(
    sink: &mut Sink,
    input: impl Stream<Item = Result<Input, Fault>>,
    reaper: &Reaper,
    leader: Pid,
) -> Result<(), Fault> {
    let mut input = std::pin::pin!(input);
    while let Some(item) = input.next().await {
        match item? {
            Input::Stdin(bytes) => sink.write(&bytes).await,
            Input::CloseStdin => sink.close().await,
            Input::Resize(size) => {
                // Without a terminal there is nothing to resize.
                if let Sink::Terminal(terminal, _) = &sink {
                    let _ = terminal.resize(size);
                }
            }
            Input::Signal(signal) => {
                reaper.signal_group(leader, signal);
            }
        }
    }
    sink.close().await;
    Ok(())
}

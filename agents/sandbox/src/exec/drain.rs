//! From a program's output to its caller.
//!
//! A pipe ends when the last process that holds it closes it, which a program
//! left in the background may never do. So the end of the program is the end of
//! its output, after a bounded time for what is still on its way:
//! [`IDLE_AFTER_END`] without a byte, [`WAIT_AFTER_END`] of waiting altogether,
//! or [`BYTES_AFTER_END`]. All that the program itself wrote is in the pipe by
//! then, and is less than the last of these.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use wolfpack_types::Fault;

use super::Output;
use crate::process::Terminal;

/// How long an output may be still after the program's end.
pub(super) const IDLE_AFTER_END: Duration = Duration::from_millis(500);
/// How long it is waited for altogether after that; time in which the caller
/// did not read does not count.
pub(super) const WAIT_AFTER_END: Duration = Duration::from_secs(5);
/// How much is taken after that: the most a pipe can be made to hold.
pub(super) const BYTES_AFTER_END: usize = 1 << 20;

/// Bytes of one message.
const CHUNK: usize = 32 * 1024;

/// Where output comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// One of the program's pipes.
    Pipe(pipe::Receiver),
    /// Its terminal.
    Terminal(Arc<Terminal>),
}

impl Source {
    /// Empty at the end. Dropping the future loses nothing.
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<Bytes> {
        buffer.reserve(CHUNK);
        match self {
            Self::Pipe(pipe) => {
                pipe.read_buf(&mut (&mut *buffer).limit(CHUNK)).await?;
            }
            Self::Terminal(terminal) => {
                let mut chunk = [0_u8; 4096];
                let read = terminal.read(&mut chunk).await?;
                buffer.extend_from_slice(&chunk[..read]);
            }
        }
        Ok(buffer.split().freeze())
    }
}

/// Sends everything from `source` as `wrap(offset, bytes)`, until its end, the
/// bounds after `ended`, or the receiver's end.
pub(super) async fn drain(
    mut source: Source,
    wrap: fn(u64, Bytes) -> Output,
    ended: CancellationToken,
    output: mpsc::Sender<Result<Output, Fault>>,
) {
    let mut buffer = BytesMut::new();
    let mut offset = 0_u64;
    let mut after_end = Budget { wait: WAIT_AFTER_END, bytes: BYTES_AFTER_END };
    loop {
        let read = if ended.is_cancelled() {
            match after_end.read(&mut source, &mut buffer).await {
                Some(read) => read,
                None => return,
            }
        } else {
            tokio::select! {
                read = source.read(&mut buffer) => read,
                () = ended.cancelled() => continue,
            }
        };
        // A pipe cannot fail otherwise than by ending.
        let Ok(bytes) = read else { return };
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len() as u64;
        if output.send(Ok(wrap(offset, bytes))).await.is_err() {
            return;
        }
        offset += length;
    }
}

struct Budget {
    wait: Duration,
    bytes: usize,
}

impl Budget {
    async fn read(
        &mut self,
        source: &mut Source,
        buffer: &mut BytesMut,
    ) -> Option<io::Result<Bytes>> {
        if self.bytes == 0 {
            return None;
        }
        let began = Instant::now();
        let read = timeout(IDLE_AFTER_END.min(self.wait), source.read(buffer)).await.ok()?;
        self.wait = self.wait.saturating_sub(began.elapsed());
        if let Ok(bytes) = &read {
            self.bytes = self.bytes.saturating_sub(bytes.len());
        }
        Some(read)
    }
}

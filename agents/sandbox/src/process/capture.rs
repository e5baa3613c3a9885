//! A short program of the agent's own, from start to end.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;

use super::launch::{Ends, KillOnDrop, Launch, LaunchError, Launcher, Pipes, Wires};
use crate::init::Exit;

/// More of what a program says on stderr is not kept.
const STDERR_LIMIT: usize = 4096;

/// Bounds of one run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it may take altogether.
    pub deadline: Duration,
    /// How much it may write to stdout, in bytes.
    pub stdout: usize,
}

/// How it ended.
#[derive(Debug)]
pub struct Captured {
    /// Its end.
    pub exit: Exit,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// The first 4 KiB of its stderr, trimmed.
    pub stderr: String,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It was not started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It was ended because it took too long.
    #[error("{program} did not end within {} ms", deadline.as_millis())]
    Late {
        /// Which program.
        program: String,
        /// The bound.
        deadline: Duration,
    },
    /// It was ended because it wrote too much.
    #[error("{program} wrote more than {limit} bytes")]
    TooLong {
        /// Which program.
        program: String,
        /// The bound, in bytes.
        limit: usize,
    },
}

/// Runs a program with `input` as its stdin and keeps what it wrote. It counts
/// as ended when its process has: a child it left behind that still holds the
/// pipes (`wl-copy` does that) is not waited for. One that is late is killed
/// with its group, and so is one whose future is dropped.
///
/// # Errors
/// When it did not run to its end within the limits.
pub async fn capture(
    launcher: &Launcher,
    launch: Launch,
    input: &[u8],
    limits: Limits,
) -> Result<Captured, CaptureError> {
    let launch = Launch { wires: Wires::Pipes, ..launch };
    let program = launch.argv.first().cloned().unwrap_or_default();
    let late = || CaptureError::Late { program: program.clone(), deadline: limits.deadline };
    let started = tokio::time::timeout(limits.deadline, launcher.launch(&launch)).await;
    let mut launched = started.map_err(|_elapsed| late())??;
    // Ends it on every way out of here but the good one, where it has no effect.
    let _ending = KillOnDrop::new(launcher.reaper(), launched.pid);
    let Ends::Pipes(Pipes { mut stdin, stdout, stderr }) = launched.ends else {
        return Err(LaunchError::Exhausted(io::Error::other("it has no pipes")).into());
    };
    let mut out = Kept::new(stdout, limits.stdout);
    let mut err = Kept::new(stderr, STDERR_LIMIT);
    let run = async {
        let feed = async move {
            // A program that does not read all of it says so by its exit code.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let pump = async { tokio::join!(out.fill(), err.fill(), feed).0 };
        tokio::select! {
            exit = &mut launched.end => exit,
            never = pump => match never {},
        }
    };
    let exit = tokio::time::timeout(limits.deadline, run).await.map_err(|_elapsed| late())?;
    let exit = exit.map_err(|error| LaunchError::Exhausted(io::Error::other(error)))?;
    out.take_rest();
    err.take_rest();
    if out.overflowed {
        return Err(CaptureError::TooLong { program, limit: limits.stdout });
    }
    let stderr = String::from_utf8_lossy(&err.bytes).trim().to_owned();
    Ok(Captured { exit, stdout: out.bytes, stderr })
}

/// One output, up to a limit; what is beyond is read and thrown away, so that
/// the program can end.
struct Kept {
    pipe: pipe::Receiver,
    bytes: Vec<u8>,
    limit: usize,
    overflowed: bool,
}

impl Kept {
    fn new(pipe: pipe::Receiver, limit: usize) -> Self {
        Self { pipe, bytes: Vec::new(), limit, overflowed: false }
    }

    /// Reads to the end, then waits for ever: the end of a pipe is not the end
    /// of its program.
    async fn fill(&mut self) -> Infallible {
        while self.pipe.readable().await.is_ok() && self.take_rest() {}
        pending().await
    }

    /// Takes what is there without waiting. Whether more may come.
    fn take_rest(&mut self) -> bool {
        let mut chunk = [0_u8; 32 * 1024];
        loop {
            match self.pipe.try_read(&mut chunk) {
                Ok(0) => return false,
                Ok(read) => {
                    let room = read.min(self.limit - self.bytes.len());
                    self.bytes.extend_from_slice(&chunk[..room]);
                    self.overflowed |= room < read;
                }
                Err(error) => {
                    return matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    );
                }
            }
        }
    }
}

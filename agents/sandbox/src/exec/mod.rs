//! Running a program for a caller, from its start to its exit.

mod drain;
mod input;
mod session;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use rustix::process::Signal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use wolfpack_types::sandbox_boot::SandboxBoot;
use wolfpack_types::{Fault, Reason};

use crate::init::Exit;
use crate::process::environment::{Environment, environment};
use crate::process::launch::Ends;
use crate::process::{Launch, Launched, Launcher, Size, Wires};
use crate::users;

/// Programs of callers that run at once; more are refused.
pub const MAX_SESSIONS: usize = 256;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Program and arguments; not empty.
    pub argv: Vec<String>,
    /// Wins over the sandbox's environment.
    pub env: Environment,
    /// Empty for the image's.
    pub cwd: String,
    /// Empty for the image's.
    pub user: String,
    /// The terminal to run it on, if any.
    pub terminal: Option<Size>,
}

/// What the caller has for a running program.
#[derive(Debug, Clone)]
pub enum Input {
    /// Bytes for its stdin.
    Stdin(Bytes),
    /// The end of its stdin.
    CloseStdin,
    /// Another size of its terminal.
    Resize(Size),
    /// A signal for its process group.
    Signal(Signal),
}

/// What a running program has for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes of its stdout, or of its terminal, from this offset on.
    Stdout(u64, Bytes),
    /// Bytes of its stderr, from this offset on.
    Stderr(u64, Bytes),
    /// It ended; the last.
    Exit(Exit),
}

/// Starts programs in one sandbox. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Execs {
    launcher: Launcher,
    boot: Arc<SandboxBoot>,
    extra: Arc<Environment>,
    root: Arc<PathBuf>,
    slots: Arc<Semaphore>,
}

/// A program that was started and waits to be driven.
#[derive(Debug)]
pub struct Started {
    launcher: Launcher,
    launched: Launched,
    slot: OwnedSemaphorePermit,
}

impl Execs {
    /// Execs of the sandbox that `boot` describes. `extra` is the environment
    /// that image and user may overlay; users are looked up under `root`.
    #[must_use]
    pub fn new(
        launcher: Launcher,
        boot: Arc<SandboxBoot>,
        extra: Environment,
        root: PathBuf,
    ) -> Self {
        Self {
            launcher,
            boot,
            extra: Arc::new(extra),
            root: Arc::new(root),
            slots: Arc::new(Semaphore::new(MAX_SESSIONS)),
        }
    }

    /// Starts a program.
    ///
    /// # Errors
    /// `EXEC_FAILED` with what is wrong, when it does not run;
    /// `OVERLOADED` when too many do.
    pub async fn start(&self, start: &Start) -> Result<Started, Fault> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_full| {
            Fault::new(
                Reason::Overloaded,
                format!(
                    "{MAX_SESSIONS} programs of callers already run in the sandbox; end one first"
                ),
            )
        })?;
        let wanted = if start.user.is_empty() { &self.boot.user } else { &start.user };
        // Read anew each time: a user may have been added since the last exec.
        let user = users::resolve(&self.root, wanted).map_err(|error| exec_failed(&error))?;
        let launch = Launch {
            argv: start.argv.clone(),
            env: environment(
                &[&self.extra, &self.boot.env, &start.env],
                &user,
                start.terminal.is_some(),
            ),
            cwd: if start.cwd.is_empty() { self.boot.cwd.clone() } else { start.cwd.clone() },
            identity: (&user).into(),
            wires: start.terminal.map_or(Wires::Pipes, Wires::Terminal),
        };
        let launched = self.launcher.launch(&launch).await.map_err(|error| exec_failed(&error))?;
        Ok(Started { launcher: self.launcher.clone(), launched, slot })
    }
}

impl Started {
    /// Its process id in the sandbox.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.launched.pid.as_raw_nonzero().get()
    }

    /// Carries input and output until the program has ended and what it wrote
    /// was sent. Input is taken in order: while the program does not read its
    /// stdin, what is behind those bytes waits too.
    ///
    /// Ends the program, and all of its session, when the receiver of `output`
    /// goes away or `input` yields a fault (which is sent on): SIGTERM, two
    /// seconds, SIGKILL. The end of `input` ends its stdin only.
    ///
    /// Returns its exit; `None` when it was ended so.
    pub async fn drive(
        self,
        input: impl Stream<Item = Result<Input, Fault>> + Send,
        output: mpsc::Sender<Result<Output, Fault>>,
    ) -> Option<Exit> {
        let Launched { pid, end, ends } = self.launched;
        let exit = match ends {
            Ends::None => None,
            ends => session::drive(self.launcher.reaper(), pid, end, ends, input, output).await,
        };
        drop(self.slot);
        exit
    }
}

fn exec_failed(error: &dyn std::error::Error) -> Fault {
    Fault::new(Reason::ExecFailed, error.to_string())
}

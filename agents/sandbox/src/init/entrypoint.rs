//! The main process: the image's entrypoint or the user's command.

use rustix::process::{Pid, Signal};
use tokio::sync::oneshot;
use wolfpack_types::sandbox_boot::SandboxBoot;

use super::{Exit, Reaper};
use crate::process::environment::{Environment, environment};
use crate::process::{Launch, LaunchError, Launcher, Wires};
use crate::users::{User, UserError};

/// Why there is no main process.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The image does not have its user.
    #[error(transparent)]
    User(#[from] UserError),
    /// It could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

impl StartError {
    /// What the container exits with: 127 when the program is not there, else 126.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::User(_) => 126,
            Self::Launch(error) => error.exit_code(),
        }
    }
}

/// The main process while it runs.
#[derive(Debug)]
pub struct Entrypoint {
    leader: Pid,
    end: oneshot::Receiver<Exit>,
}

impl Entrypoint {
    /// Starts it as the image's user, on the container's own stdin, stdout and
    /// stderr. `None` when the boot names no program: then the sandbox runs
    /// until it is told to stop.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(
        launcher: &Launcher,
        boot: &SandboxBoot,
        user: &User,
        extra: &Environment,
    ) -> Result<Option<Self>, StartError> {
        if boot.argv.is_empty() {
            return Ok(None);
        }
        let launch = Launch {
            argv: boot.argv.clone(),
            env: environment(&[extra, &boot.env], user, false),
            cwd: boot.cwd.clone(),
            identity: user.into(),
            wires: Wires::Console,
        };
        let launched = launcher.launch(&launch).await?;
        Ok(Some(Self { leader: launched.pid, end: launched.end }))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.leader
    }

    /// Waits for its end. Dropping the future loses nothing.
    pub async fn ended(&mut self) -> Exit {
        // The reaper outlives every child; were it gone, the end is unknown.
        (&mut self.end).await.unwrap_or(Exit::Code(1))
    }

    /// Passes a signal on to its process group.
    pub fn signal(&self, reaper: &Reaper, signal: Signal) {
        reaper.signal_group(self.leader, signal);
    }
}

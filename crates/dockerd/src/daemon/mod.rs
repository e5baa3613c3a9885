//! A dockerd of one's own: told what to do, started, found ready, and ended
//! with all that it started. It is taken only with a storage driver that is
//! fit, and says why when it is not there.

mod containers;
mod error;
mod leftovers;
mod log;
mod options;
mod process;
mod ready;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use wolfpack_runtime::Supervisor;

pub use containers::stop_containers;
pub use error::DaemonError;
pub use options::{EngineOptions, GpuOptions, LogOptions, arguments, daemon_json};
pub use process::{Ended, Spawn, Spawned, TokioSpawn};
pub use ready::{EngineFacts, ask};

use process::Process;

/// How often a starting engine is asked.
const POLL: Duration = Duration::from_millis(50);
/// What an engine that must not stay may take to end.
const REFUSED: Duration = Duration::from_secs(5);

/// A dockerd that answers. Dropping it leaves it running; end it by
/// [`Daemon::stop`].
#[derive(Debug)]
pub struct Daemon {
    options: EngineOptions,
    process: Process,
    facts: EngineFacts,
}

impl Daemon {
    /// Starts dockerd in a process group of its own and waits until it
    /// answers `/_ping` and `/info`. One that does not, or that took another
    /// storage driver than an overlay, is ended again.
    ///
    /// Cancelling it may leave a dockerd that is not ready; the next start
    /// answers [`DaemonError::Running`] then.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn start(
        options: EngineOptions,
        deadline: Duration,
        tasks: &Supervisor,
    ) -> Result<Self, DaemonError> {
        Self::start_by(options, deadline, tasks, &TokioSpawn).await
    }

    /// As [`Daemon::start`], where processes are started by somebody else: a
    /// PID 1 waits for all its children in one place.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn start_by(
        options: EngineOptions,
        deadline: Duration,
        tasks: &Supervisor,
        spawn: &dyn Spawn,
    ) -> Result<Self, DaemonError> {
        let until = Instant::now() + deadline;
        let mut process = Process::start(&options, tasks, spawn).await?;
        let facts = match ready(&mut process, &options.socket, deadline, until).await {
            Ok(facts) => facts,
            Err(error) => {
                process.stop(&options, REFUSED).await;
                return Err(error);
            }
        };
        if !facts.storage_is_overlay() {
            process.stop(&options, REFUSED).await;
            let last = process.last_lines();
            return Err(DaemonError::StorageDriver { found: facts.storage_driver, last });
        }
        Ok(Self { options, process, facts })
    }

    /// What the engine says about itself.
    #[must_use]
    pub fn info(&self) -> &EngineFacts {
        &self.facts
    }

    /// What it was told.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it said last, oldest first.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.process.last_lines()
    }

    /// Waits until dockerd has ended. Its containers may go on. Dropping the
    /// future loses nothing.
    pub async fn wait(&mut self) -> Ended {
        self.process.wait().await
    }

    /// Ends dockerd and its containerd: SIGTERM, and what is left when half of
    /// the deadline has passed by SIGKILL. Whether it ended by itself.
    pub async fn stop(mut self, deadline: Duration) -> bool {
        self.process.stop(&self.options, deadline).await
    }
}

/// Asks until the engine answers, it ends, or the time is over.
async fn ready(
    process: &mut Process,
    socket: &Path,
    within: Duration,
    until: Instant,
) -> Result<EngineFacts, DaemonError> {
    let mut refused = None;
    loop {
        // Before the socket is there, asking only makes noise.
        if tokio::fs::try_exists(socket).await.unwrap_or(false) {
            match tokio::time::timeout_at(until, ask(socket)).await {
                Ok(Ok(facts)) => return Ok(facts),
                Ok(Err(why)) => refused = Some(why),
                Err(_) => {}
            }
        }
        if Instant::now() >= until {
            let mut last = process.last_lines();
            last.extend(refused.map(|why| format!("asked, it answered: {why}")));
            return Err(DaemonError::NotReady { within, last });
        }
        tokio::select! {
            ended = process.wait() => {
                process.drained().await;
                let last = process.last_lines();
                return Err(DaemonError::Ended { status: ended.to_string(), last });
            }
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

//! dockerd as a process: started in a process group of its own, its end waited
//! for, and ended with its containerd.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wolfpack_runtime::Supervisor;

use super::log::{LastLines, RotatingFile, keep};
use super::{DaemonError, EngineOptions, arguments, daemon_json, leftovers};

/// How long the last words of a process that has ended may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a containerd that must end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
    /// It is gone, and somebody else was told how.
    Unknown,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("exit code unknown"),
        }
    }
}

impl From<std::process::ExitStatus> for Ended {
    fn from(status: std::process::ExitStatus) -> Self {
        let signal = status.signal().map(Self::Signal);
        status.code().map(Self::Code).or(signal).unwrap_or(Self::Unknown)
    }
}

/// A process that was started.
pub struct Spawned {
    /// Its process id.
    pub pid: u32,
    /// Resolves when it has ended.
    pub ended: BoxFuture<'static, Ended>,
}

impl fmt::Debug for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Starts processes and learns of their ends: for a PID 1 that waits for all
/// its children in one place.
pub trait Spawn: Send + Sync {
    /// Starts it as it is told. The command must be dropped: it holds an end
    /// of the pipe that tells when the process and its children are silent.
    ///
    /// # Errors
    /// When it cannot be started.
    fn spawn(&self, command: Command) -> io::Result<Spawned>;
}

/// Starts processes by tokio, which waits for each by its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioSpawn;

impl Spawn for TokioSpawn {
    fn spawn(&self, command: Command) -> io::Result<Spawned> {
        let mut child = tokio::process::Command::from(command).kill_on_drop(false).spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it ended while it was started"))?;
        let ended = async move { child.wait().await.map_or(Ended::Unknown, Ended::from) }.boxed();
        Ok(Spawned { pid, ended })
    }
}

/// A dockerd that was started.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    /// Names the process itself: its number may go to another one.
    handle: Option<OwnedFd>,
    end: End,
    last: LastLines,
    silent: Option<oneshot::Receiver<()>>,
}

enum End {
    Awaited(BoxFuture<'static, Ended>),
    Known(Ended),
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Awaited(_) => f.write_str("Awaited"),
            Self::Known(ended) => f.debug_tuple("Known").field(ended).finish(),
        }
    }
}

impl Process {
    pub(super) async fn start(
        options: &EngineOptions,
        tasks: &Supervisor,
        spawn: &dyn Spawn,
    ) -> Result<Self, DaemonError> {
        let faults = options.faults();
        if !faults.is_empty() {
            return Err(DaemonError::Options(faults));
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DaemonError::Place { path, source }
        };
        place(options)?;
        if let Some(pid) = leftovers::clear(options).map_err(at(&options.pid_file))? {
            return Err(DaemonError::Running(pid));
        }
        let file = RotatingFile::open(&options.log).await.map_err(at(&options.log.file))?;
        let piped = |source| DaemonError::Place { path: "/proc/self/fd".into(), source };
        let (read, write) = io::pipe().map_err(piped)?;
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(read)).map_err(piped)?;
        let mut command = Command::new(&options.program);
        command
            .args(arguments(options))
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            // A terminal's signals are for whoever watches it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(write.try_clone().map_err(piped)?)
            .stderr(write);
        let spawned = spawn
            .spawn(command)
            .map_err(|source| DaemonError::Program { program: options.program.clone(), source })?;
        let last = LastLines::default();
        let (told, silent) = oneshot::channel();
        let kept = keep(output, file, last.clone());
        tasks.spawn("engine.log", async move {
            kept.await;
            let _ = told.send(());
        });
        let pid = i32::try_from(spawned.pid).ok().and_then(Pid::from_raw);
        // None when it has ended already: then there is nobody to signal.
        let handle = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let end = End::Awaited(spawned.ended);
        Ok(Self { pid: spawned.pid, handle, end, last, silent: Some(silent) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn last_lines(&self) -> Vec<String> {
        self.last.get()
    }

    pub(super) async fn wait(&mut self) -> Ended {
        match &mut self.end {
            End::Known(ended) => *ended,
            End::Awaited(future) => {
                let ended = future.await;
                self.end = End::Known(ended);
                ended
            }
        }
    }

    /// Waits until all it said has been read; its children may hold the pipe.
    pub(super) async fn drained(&mut self) {
        if let Some(silent) = self.silent.take() {
            let _ = tokio::time::timeout(LAST_WORDS, silent).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(handle) = &self.handle {
            // It fails only for one that has ended, which is what was wanted.
            let _ = pidfd_send_signal(handle, signal);
        }
    }

    /// Ends it and its containerd; whether both went without being killed.
    pub(super) async fn stop(&mut self, options: &EngineOptions, deadline: Duration) -> bool {
        // dockerd takes the file with it.
        let containerd = leftovers::running(&leftovers::containerd_pid_file(options), "containerd")
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.signal(Signal::TERM);
        let in_time = tokio::time::timeout(deadline / 2, self.wait()).await.is_ok();
        if !in_time {
            tracing::warn!(pid = self.pid, "dockerd does not end, it is killed");
            self.signal(Signal::KILL);
            // Only a process that waits for a dead disk outlives this.
            let _ = tokio::time::timeout(deadline / 4, self.wait()).await;
        }
        let alone = match containerd {
            Some(containerd) => end(&containerd, deadline / 4).await,
            None => true,
        };
        self.drained().await;
        in_time && alone
    }
}

/// Ends a process that is not a child; whether it went without being killed.
async fn end(process: &OwnedFd, deadline: Duration) -> bool {
    let until = Instant::now() + deadline;
    while pidfd_send_signal(process, Signal::TERM).is_ok() {
        if Instant::now() >= until {
            let _ = pidfd_send_signal(process, Signal::KILL);
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Makes its folders and writes its `daemon.json`.
fn place(options: &EngineOptions) -> Result<(), DaemonError> {
    let files = [&options.socket, &options.pid_file, &options.config_file, &options.log.file];
    let parents = files.into_iter().filter_map(|file| file.parent());
    for folder in [options.data_root.as_path(), &options.exec_root].into_iter().chain(parents) {
        std::fs::create_dir_all(folder)
            .map_err(|source| DaemonError::Place { path: folder.to_owned(), source })?;
    }
    let text = format!("{:#}\n", daemon_json(options));
    std::fs::write(&options.config_file, text)
        .map_err(|source| DaemonError::Place { path: options.config_file.clone(), source })
}

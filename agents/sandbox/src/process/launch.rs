//! The agent's side of a start.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::child;
use super::environment::Environment;
use super::refusal::Refusal;
use super::terminal::{Size, Terminal};
use crate::init::{Exit, Reaper};
use crate::users::User;

/// A helper that has not become the program by then is stuck, in a directory of
/// a dead file server for one.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A failure's text is shorter; more is not read.
const REPORT_LIMIT: u64 = 256 * 1024;

/// The ids a program runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl From<&User> for Identity {
    fn from(user: &User) -> Self {
        Self { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
    }
}

/// What the program's stdin, stdout and stderr are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wires {
    /// The container's own; see [`Console`].
    Console,
    /// A pipe each.
    Pipes,
    /// A terminal of this size.
    Terminal(Size),
}

/// A program to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Program and arguments; not empty.
    pub argv: Vec<String>,
    /// All of its environment.
    pub env: Environment,
    /// Its working directory.
    pub cwd: String,
    /// Who it runs as.
    pub identity: Identity,
    /// What it is connected to.
    pub wires: Wires,
}

/// The agent's ends of a program's pipes.
#[derive(Debug)]
pub struct Pipes {
    /// Writes to its stdin.
    pub stdin: pipe::Sender,
    /// Reads its stdout.
    pub stdout: pipe::Receiver,
    /// Reads its stderr.
    pub stderr: pipe::Receiver,
}

/// What leads to a running program.
#[derive(Debug)]
pub enum Ends {
    /// Nothing: it has the container's own.
    None,
    /// Pipes.
    Pipes(Pipes),
    /// A terminal.
    Terminal(Terminal),
}

/// A program that runs. It leads its own session and process group.
#[derive(Debug)]
pub struct Launched {
    /// Its process id.
    pub pid: Pid,
    /// Told once when it has ended.
    pub end: oneshot::Receiver<Exit>,
    /// What it is connected to.
    pub ends: Ends,
}

/// Kills a program and its process group when it is dropped before the
/// program's end was reaped, and does nothing after that.
#[derive(Debug)]
pub struct KillOnDrop {
    reaper: Reaper,
    leader: Pid,
    armed: bool,
}

impl KillOnDrop {
    /// Guards the group of `leader`, a child of `reaper`.
    #[must_use]
    pub fn new(reaper: &Reaper, leader: Pid) -> Self {
        Self { reaper: reaper.clone(), leader, armed: true }
    }

    /// Lets the program live.
    pub fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.reaper.signal_group(self.leader, rustix::process::Signal::KILL);
            // Before the helper has made its session it leads no group.
            self.reaper.signal(self.leader, rustix::process::Signal::KILL);
        }
    }
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The image, or the request, does not allow it.
    #[error("{0}")]
    Refused(Refusal),
    /// The request cannot be passed to the kernel at all.
    #[error("arguments and environment must not contain a zero byte")]
    ZeroByte,
    /// The sandbox has no room for another process, descriptor or terminal.
    #[error("the sandbox cannot start another process: {0}; end some, or raise its limits")]
    Exhausted(#[source] io::Error),
    /// It did not get going in time.
    #[error("the program did not start within {} s; is its directory on a file system that hangs?", START_DEADLINE.as_secs())]
    Stuck,
}

impl LaunchError {
    /// The exit code that stands for it: 127 for a missing program, else 126.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(refusal) => refusal.exit_code(),
            Self::ZeroByte | Self::Exhausted(_) | Self::Stuck => 126,
        }
    }
}

/// The container's own output, which is what its logs are. The agent's own
/// stderr leads elsewhere once its log is open.
#[derive(Debug)]
pub struct Console {
    /// The container's stdout.
    pub stdout: OwnedFd,
    /// The container's stderr.
    pub stderr: OwnedFd,
}

impl Console {
    /// Keeps the stdout and stderr that this process has now.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn keep() -> io::Result<Self> {
        Ok(Self {
            stdout: io::stdout().as_fd().try_clone_to_owned()?,
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
        })
    }

    /// Says something that an operator must see without knowing where the
    /// agent's log is.
    pub fn say(&self, words: &str) {
        let line = format!("wolfpack-sandbox-agent: {words}\n");
        // There is nowhere left to say that this failed.
        let _ = rustix::io::write(&self.stderr, line.as_bytes());
    }
}

/// Starts programs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Launcher {
    reaper: Reaper,
    helper: PathBuf,
    console: Arc<Console>,
}

impl Launcher {
    /// A launcher whose children `reaper` waits for; `helper` is this crate's
    /// binary, and [`Launcher::OWN_BINARY`] when this process runs it.
    #[must_use]
    pub fn new(reaper: Reaper, helper: PathBuf, console: Arc<Console>) -> Self {
        Self { reaper, helper, console }
    }

    /// The running binary, whatever has become of its file.
    pub const OWN_BINARY: &str = "/proc/self/exe";

    /// Who waits for the children.
    #[must_use]
    pub fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    /// Starts a program and returns once it runs: the kernel has executed it,
    /// nothing of it has run before its user and directory were right.
    /// Dropping the future kills what has not got that far.
    ///
    /// # Errors
    /// When it could not be started; nothing of it is left then.
    pub async fn launch(&self, launch: &Launch) -> Result<Launched, LaunchError> {
        let (report, reporter) = io::pipe().map_err(LaunchError::Exhausted)?;
        let (terminal, program_side) = match launch.wires {
            Wires::Terminal(size) => {
                let (terminal, side) = Terminal::open(size).map_err(LaunchError::Exhausted)?;
                (Some(terminal), Some(side))
            }
            Wires::Console | Wires::Pipes => (None, None),
        };
        let mut command = self.command(launch, &reporter);
        self.connect(&mut command, launch.wires, program_side).map_err(LaunchError::Exhausted)?;
        let mut ends = Ends::None;
        let started = self.reaper.start(|| {
            // The one descriptor that a child inherits beside its stdio; no other
            // child is started while it can be inherited.
            rustix::io::fcntl_setfd(&reporter, rustix::io::FdFlags::empty())?;
            let mut child = command.spawn();
            drop(reporter);
            if let Ok(child) = &mut child {
                ends = agent_side(child, terminal);
            }
            child.map(|child| child.id())
        });
        // With it go the agent's copies of the program's side.
        drop(command);
        let (pid, end) = started.map_err(|error| Self::classify(error, launch))?;
        let starting = KillOnDrop::new(&self.reaper, pid);
        let report = listen(report).map_err(LaunchError::Exhausted)?;
        match tokio::time::timeout(START_DEADLINE, told(report)).await {
            Ok(None) => {
                starting.disarm();
                Ok(Launched { pid, end, ends })
            }
            Ok(Some(refusal)) => Err(LaunchError::Refused(refusal)),
            Err(_elapsed) => Err(LaunchError::Stuck),
        }
    }

    fn command(&self, launch: &Launch, reporter: &PipeWriter) -> Command {
        let Identity { uid, gid, groups } = &launch.identity;
        let mut command = Command::new(&self.helper);
        command.arg(child::SUBCOMMAND);
        command.arg(format!("--report={}", reporter.as_raw_fd()));
        command.arg(format!("--uid={uid}")).arg(format!("--gid={gid}"));
        if !groups.is_empty() {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            command.arg(format!("--groups={}", groups.join(",")));
        }
        command.arg(format!("--cwd={}", launch.cwd));
        if matches!(launch.wires, Wires::Terminal(_)) {
            command.arg("--tty");
        }
        command.arg("--").args(&launch.argv);
        command.env_clear().envs(&launch.env);
        command
    }

    fn connect(
        &self,
        command: &mut Command,
        wires: Wires,
        program_side: Option<OwnedFd>,
    ) -> io::Result<()> {
        match (wires, program_side) {
            (Wires::Terminal(_), Some(side)) => {
                command.stdin(side.try_clone()?).stdout(side.try_clone()?).stderr(side);
            }
            (Wires::Pipes, _) => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            (Wires::Console | Wires::Terminal(_), _) => {
                command.stdin(Stdio::inherit());
                command.stdout(self.console.stdout.try_clone()?);
                command.stderr(self.console.stderr.try_clone()?);
            }
        }
        Ok(())
    }

    /// The helper is always there, so what fails here is the kernel's limits.
    fn classify(error: io::Error, launch: &Launch) -> LaunchError {
        if error.kind() == io::ErrorKind::InvalidInput {
            return LaunchError::ZeroByte;
        }
        let too_long = rustix::io::Errno::TOOBIG.raw_os_error();
        if error.raw_os_error() == Some(too_long) {
            let name = launch.argv.first().cloned().unwrap_or_default();
            return LaunchError::Refused(Refusal::Program { name, errno: too_long });
        }
        LaunchError::Exhausted(error)
    }
}

fn agent_side(child: &mut std::process::Child, terminal: Option<Terminal>) -> Ends {
    if let Some(terminal) = terminal {
        return Ends::Terminal(terminal);
    }
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Ends::None;
    };
    let stdin = pipe::Sender::from_owned_fd(stdin.into());
    let stdout = pipe::Receiver::from_owned_fd(stdout.into());
    let stderr = pipe::Receiver::from_owned_fd(stderr.into());
    match (stdin, stdout, stderr) {
        (Ok(stdin), Ok(stdout), Ok(stderr)) => Ends::Pipes(Pipes { stdin, stdout, stderr }),
        _ => Ends::None,
    }
}

fn listen(report: PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(report.into())
}

/// What the helper told; nothing when it became the program, which closed the
/// pipe.
async fn told(report: pipe::Receiver) -> Option<Refusal> {
    let mut text = Vec::new();
    let read = report.take(REPORT_LIMIT).read_to_end(&mut text).await;
    if read.is_err() || text.is_empty() {
        return None;
    }
    Some(serde_json::from_slice(&text).unwrap_or_else(|_| Refusal::Session {
        step: "report".to_owned(),
        errno: rustix::io::Errno::PROTO.raw_os_error(),
    }))
}

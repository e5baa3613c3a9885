//! sway without a screen, drawn by the CPU, as the image's user.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::fs::{Gid, Mode, Uid};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{DesktopBackend, DesktopError, Screenshot, State, clipboard, ipc, screenshot};
use crate::init::Exit;
use crate::process::environment::{Environment, environment};
use crate::process::launch::{Ends, KillOnDrop};
use crate::process::{Launch, Launched, Launcher, Wires};
use crate::users::User;

/// The configuration that desktop images bring.
const CONFIG: &str = "/etc/wolfpack/sway/config";
/// The socket that sway opens in a runtime folder of its own.
const WAYLAND_DISPLAY: &str = "wayland-1";
/// By then a compositor that was started answers, or never.
const READY_DEADLINE: Duration = Duration::from_secs(15);
const READY_POLL: Duration = Duration::from_millis(10);
/// How long a call waits for a desktop that is starting.
const CALL_PATIENCE: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// One that ran this long did not fail at start.
const HEALTHY: Duration = Duration::from_secs(60);
/// Helpers of the desktop (`grim`, `wl-copy`) that run at once; more wait.
const HELPERS: usize = 4;

/// The desktop of `wolfpack/sandbox-desktop`.
pub struct Sway {
    launcher: Launcher,
    user: User,
    base: Environment,
    runtime: PathBuf,
    socket: PathBuf,
    state: watch::Sender<State>,
    helpers: Semaphore,
}

impl Sway {
    /// A desktop that is not started yet, for the image's user and environment.
    #[must_use]
    pub fn new(launcher: Launcher, user: User, image: &Environment) -> Self {
        let given =
            |name: &str| image.get(name).filter(|value| value.starts_with('/')).map(PathBuf::from);
        let runtime = given("XDG_RUNTIME_DIR")
            .unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", user.uid)));
        let socket = given("SWAYSOCK").unwrap_or_else(|| runtime.join("sway.sock"));
        let state = watch::Sender::new(State::Down("it is starting".to_owned()));
        Self {
            launcher,
            user,
            base: image.clone(),
            runtime,
            socket,
            state,
            helpers: Semaphore::new(HELPERS),
        }
    }

    /// From the start of sway to its end; in words how it ended.
    async fn once(&self) -> String {
        if self.user.is_root() {
            return "sway refuses to run as root; give the image a normal user".to_owned();
        }
        if let Err(error) = prepare(&self.runtime, &self.socket, &self.user) {
            return format!("its folder {} could not be made: {error}", self.runtime.display());
        }
        let launch = self.launch(&["sway", "--config", CONFIG], &sway_environment(&self.base));
        let launched = match self.launcher.launch(&launch).await {
            Ok(launched) => launched,
            Err(error) => return error.to_string(),
        };
        let Launched { pid, mut end, ends } = launched;
        let _ending = KillOnDrop::new(self.launcher.reaper(), pid);
        let Ends::Pipes(pipes) = ends else { return "sway has no output".to_owned() };
        let last = Mutex::new(String::new());
        let began = Instant::now();
        let lived = async {
            let Ok(version) = timeout(READY_DEADLINE, self.answers()).await else {
                return format!("sway did not answer within {} s", READY_DEADLINE.as_secs());
            };
            info!(version, ready_ms = began.elapsed().as_millis(), "the desktop is up");
            self.state.send_replace(State::Up);
            pending().await
        };
        let outputs =
            async { tokio::join!(follow(pipes.stdout, &last), follow(pipes.stderr, &last)).0 };
        let how = tokio::select! {
            exit = &mut end => match exit {
                Ok(Exit::Code(code)) => format!("sway ended with code {code}"),
                Ok(Exit::Signal(signal)) => format!("sway was ended by signal {signal}"),
                Err(_) => "sway's end was not told".to_owned(),
            },
            how = lived => how,
            never = outputs => match never {},
        };
        let last = last.into_inner();
        if last.is_empty() { how } else { format!("{how}; it said last: {last}") }
    }

    /// Waits until the compositor answers; its version.
    async fn answers(&self) -> String {
        let display = self.runtime.join(WAYLAND_DISPLAY);
        loop {
            if display.exists()
                && let Ok(version) = ipc::version(&self.socket).await
            {
                return version;
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    fn launch(&self, argv: &[&str], extra: &Environment) -> Launch {
        Launch {
            argv: argv.iter().map(ToString::to_string).collect(),
            env: environment(&[&self.base, &self.environment(), extra], &self.user, false),
            cwd: "/".to_owned(),
            identity: (&self.user).into(),
            wires: Wires::Pipes,
        }
    }

    /// A program of the desktop's user, once the desktop is up and there is
    /// room for it.
    async fn helper(&self) -> Result<(Launch, SemaphorePermit<'_>), DesktopError> {
        let mut state = self.state.subscribe();
        if timeout(CALL_PATIENCE, state.wait_for(|state| *state == State::Up)).await.is_err() {
            let State::Down(why) = &*state.borrow() else {
                return Err(DesktopError::Down("it was just starting".to_owned()));
            };
            return Err(DesktopError::Down(why.clone()));
        }
        let busy = || DesktopError::Down("it is busy with other calls".to_owned());
        let permit =
            timeout(CALL_PATIENCE, self.helpers.acquire()).await.map_err(|_elapsed| busy())?;
        let permit = permit.map_err(|_closed| busy())?;
        Ok((self.launch(&[], &Environment::new()), permit))
    }
}

#[async_trait]
impl DesktopBackend for Sway {
    async fn run(&self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let began = Instant::now();
            let why = self.once().await;
            warn!(why, "the desktop is down; it is started again");
            self.state.send_replace(State::Down(why));
            if began.elapsed() > HEALTHY {
                backoff = FIRST_BACKOFF;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    fn environment(&self) -> Environment {
        Environment::from([
            ("XDG_RUNTIME_DIR".to_owned(), self.runtime.display().to_string()),
            ("SWAYSOCK".to_owned(), self.socket.display().to_string()),
            ("WAYLAND_DISPLAY".to_owned(), WAYLAND_DISPLAY.to_owned()),
            ("XDG_SESSION_TYPE".to_owned(), "wayland".to_owned()),
        ])
    }

    async fn screenshot(&self) -> Result<Screenshot, DesktopError> {
        let (launch, _permit) = self.helper().await?;
        screenshot::take(&self.launcher, launch).await
    }

    async fn clipboard(&self) -> Result<String, DesktopError> {
        let (launch, _permit) = self.helper().await?;
        clipboard::get(&self.launcher, launch).await
    }

    async fn set_clipboard(&self, text: &str) -> Result<(), DesktopError> {
        let (launch, _permit) = self.helper().await?;
        clipboard::set(&self.launcher, launch, text).await
    }
}

/// What makes sway run without a screen, a GPU and input devices, where the
/// image does not say it itself.
fn sway_environment(image: &Environment) -> Environment {
    [("WLR_BACKENDS", "headless"), ("WLR_RENDERER", "pixman"), ("WLR_LIBINPUT_NO_DEVICES", "1")]
        .into_iter()
        .filter(|(name, _)| !image.contains_key(*name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Makes the runtime folder, which a tmpfs on `/run` hides, and takes away the
/// socket that a killed sway left: the next one would listen under another name.
fn prepare(runtime: &Path, socket: &Path, user: &User) -> io::Result<()> {
    std::fs::create_dir_all(runtime)?;
    rustix::fs::chown(runtime, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
    rustix::fs::chmod(runtime, Mode::RWXU)?;
    // create_dir_all made what lies above for us alone, by our umask.
    if let Some(above) = runtime.parent().filter(|above| *above != Path::new("/")) {
        let mode = rustix::fs::stat(above).map(|stat| Mode::from_raw_mode(stat.st_mode))?;
        rustix::fs::chmod(above, mode | Mode::from_raw_mode(0o111))?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Logs what sway says, line by line, and keeps the last; then waits for ever.
async fn follow(output: pipe::Receiver, last: &Mutex<String>) -> Infallible {
    /// A longer line is cut in pieces.
    const LINE: u64 = 2048;
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut output).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return pending().await,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim().to_owned();
                if !text.is_empty() {
                    info!(target: "sway", "{text}");
                    *last.lock() = text;
                }
            }
        }
    }
}

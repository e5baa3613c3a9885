//! Real processes under test: their binaries, logs and ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

/// The folder of the built binaries: `WOLFPACK_TEST_BINARIES`, or where the
/// test itself was built.
///
/// # Panics
/// When the binary is not there; it says how to build it.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("WOLFPACK_TEST_BINARIES").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            test.ancestors().nth(2).unwrap().to_owned()
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing; run: cargo build --workspace --bins", path.display());
    path
}

/// The static sandbox agent: `WOLFPACK_SANDBOX_AGENT`, or where
/// `scripts/build-sandbox-agent` leaves it.
///
/// # Panics
/// When it is not there; it says how to build it.
#[must_use]
pub fn sandbox_agent() -> PathBuf {
    let path = std::env::var_os("WOLFPACK_SANDBOX_AGENT").map_or_else(
        || {
            let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            repo.join("target/static/x86_64-unknown-linux-gnu/debug/wolfpack-sandbox-agent")
        },
        PathBuf::from,
    );
    assert!(path.exists(), "{} is missing; run: scripts/build-sandbox-agent", path.display());
    path
}

/// A process that ends with the test, killed if need be.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with its output in `{folder}/{name}.log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of what it wrote, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Its end, if it has ended.
    ///
    /// # Panics
    /// When the operating system does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Kills it at once, as a crash would.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name));
        let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Panics
    /// When it has not ended after `limit`; its last words are in the message.
    pub async fn stop(&mut self, limit: Duration) -> ExitStatus {
        if self.child.id().is_some() {
            self.signal(rustix::process::Signal::TERM);
        }
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("{} did not stop within {limit:?}:\n{}", self.name, self.log_tail()),
        }
    }
}

/// Asks again until the answer is there, for at most `limit`.
///
/// # Panics
/// When the time is over; the last refusal is in the message.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut ask: F) -> T
where
    F: AsyncFnMut() -> anyhow::Result<T>,
{
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if begun.elapsed() > limit => {
                panic!("{what}: not within {limit:?}; last: {error:#}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

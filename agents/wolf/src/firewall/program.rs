//! Runs `iptables`.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::FirewallError;
use crate::engine::EngineError;

/// Where to look when a program is not in the path of a service.
const FOLDERS: [&str; 3] = ["", "/usr/sbin/", "/sbin/"];
/// How long the program may wait for another one's lock, in seconds.
const LOCK: &str = "5";
/// How long one run of it may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// All rules that filter.
pub(super) async fn list() -> Result<String, FirewallError> {
    run("iptables", &["-w", LOCK, "-S"], "").await
}

/// Makes these changes, all or none.
pub(super) async fn change(script: &[String]) -> Result<(), FirewallError> {
    if script.is_empty() {
        return Ok(());
    }
    let text = format!("*filter\n{}\nCOMMIT\n", script.join("\n"));
    run("iptables-restore", &["-w", LOCK, "--noflush"], &text).await.map(drop)
}

async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    let running = async {
        let mut missing = io::Error::from(io::ErrorKind::NotFound);
        for folder in FOLDERS {
            match run_at(&format!("{folder}{program}"), arguments, input).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
                other => return other,
            }
        }
        Err(missing)
    };
    let output = match tokio::time::timeout(DEADLINE, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(FirewallError::Program(error)),
        Err(_) => return Err(FirewallError::Deadline(DEADLINE)),
    };
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(FirewallError::Failed(EngineError::words(said.trim())))
    }
}

async fn run_at(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ended already says why by its status.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait_with_output().await
}

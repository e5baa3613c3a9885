//! Short-lived programs, with a deadline.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long one may run.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a program wrote, when it ended well.
///
/// # Errors
/// Why it did not: not there, not in time, or its own words.
pub(super) async fn run<A: AsRef<OsStr>>(
    program: &OsStr,
    arguments: &[A],
) -> Result<String, String> {
    let name = program.to_string_lossy();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(DEADLINE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{name} cannot be run: {error}")),
        Err(_) => return Err(format!("{name} did not end within {DEADLINE:?}")),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("{name}: {}", said.trim()))
}

//! Processes of a benchmark: started, waited for, and gone with it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};

/// Starts this program as a part, with its configuration in a file of `folder`.
pub(crate) fn start_part(
    part: &str,
    folder: &Path,
    configuration: &impl serde::Serialize,
) -> anyhow::Result<Child> {
    Ok(part_command(part, folder, configuration)?.spawn()?)
}

/// As [`start_part`], for a part that tells something on its standard output.
pub(crate) fn start_telling_part(
    part: &str,
    folder: &Path,
    configuration: &impl serde::Serialize,
) -> anyhow::Result<Child> {
    Ok(part_command(part, folder, configuration)?.stdout(Stdio::piped()).spawn()?)
}

fn part_command(
    part: &str,
    folder: &Path,
    configuration: &impl serde::Serialize,
) -> anyhow::Result<Command> {
    std::fs::create_dir_all(folder)?;
    let file: PathBuf = folder.join(format!("{part}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(configuration)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("part").arg(part).arg(file).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Starts a program that nobody listens to.
pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<Child> {
    let program = command.as_std().get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Starts a program whose words go to a file.
pub(crate) fn logged(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let program = command.as_std().get_program().to_owned();
    let file = std::fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// The id of a process that was not waited for yet.
pub(crate) fn pid(child: &Child) -> anyhow::Result<u32> {
    child.id().context("a process of the benchmark has ended")
}

/// An address of this machine that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Waits until something listens there, 10 s at most.
pub(crate) async fn reachable(address: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("nothing listens on {address} after 10 s")
}

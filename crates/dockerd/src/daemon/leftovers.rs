//! What an engine that was killed leaves behind. A pid file with the number of
//! some other process makes dockerd refuse to start, and makes it take a
//! stranger for its containerd.

use std::io;
use std::path::{Path, PathBuf};

use super::EngineOptions;

/// The pid file of the containerd that dockerd starts.
pub(super) fn containerd_pid_file(options: &EngineOptions) -> PathBuf {
    options.exec_root.join("containerd/containerd.pid")
}

/// The process that a pid file names, when it runs `program` and not another.
pub(super) fn running(file: &Path, program: &str) -> Option<i32> {
    let text = std::fs::read_to_string(file).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == program).then_some(pid)
}

/// Removes the pid files that name no such process. The one of a dockerd that
/// runs is answered: there must not be two.
///
/// # Errors
/// When a file stays.
pub(super) fn clear(options: &EngineOptions) -> io::Result<Option<i32>> {
    let program = options.program.file_name().unwrap_or_default().to_string_lossy();
    // The kernel keeps 15 characters of a name.
    let program: String = program.chars().take(15).collect();
    if let Some(pid) = running(&options.pid_file, &program) {
        return Ok(Some(pid));
    }
    remove(&options.pid_file)?;
    let containerd = containerd_pid_file(options);
    if running(&containerd, "containerd").is_none() {
        remove(&containerd)?;
    }
    Ok(None)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

//! Why there is no engine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no engine. Texts name the cause by dockerd's own last words.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The options contradict each other.
    #[error("the engine's options cannot be used: {}", .0.join("; "))]
    Options(Vec<String>),
    /// The program is not there or cannot be run.
    #[error("{} cannot be run: {source}; install Docker's engine (docker.io)", program.display())]
    Program {
        /// Which one.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder of its own cannot be made.
    #[error("{} cannot be written: {source}", path.display())]
    Place {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another dockerd runs on the same files.
    #[error("dockerd already runs here as process {0}; stop it first")]
    Running(i32),
    /// It ended before it answered.
    #[error("dockerd ended at once ({status}): {}", telling(last))]
    Ended {
        /// How.
        status: String,
        /// Its last lines.
        last: Vec<String>,
    },
    /// It did not answer in time; it was ended.
    #[error("dockerd did not answer within {within:?}: {}", telling(last))]
    NotReady {
        /// How long it had.
        within: Duration,
        /// Its last lines.
        last: Vec<String>,
    },
    /// It answers, but not what an engine answers; it was ended.
    #[error("dockerd answers wrongly: {0}")]
    Api(String),
    /// Its storage driver copies whole images; it was ended.
    #[error(
        "dockerd took the storage driver {found:?}, and only overlay2 and overlayfs are fit: put \
         its data root on a volume of ext4 or xfs: {}",
        telling(last)
    )]
    StorageDriver {
        /// What it took.
        found: String,
        /// Its last lines.
        last: Vec<String>,
    },
}

impl DaemonError {
    /// dockerd's last lines, when it said any.
    #[must_use]
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::Ended { last, .. }
            | Self::NotReady { last, .. }
            | Self::StorageDriver { last, .. } => last,
            Self::Options(_)
            | Self::Program { .. }
            | Self::Place { .. }
            | Self::Running(_)
            | Self::Api(_) => &[],
        }
    }
}

/// The line that says most: dockerd's own reason for its end, else its last
/// error, else its last line.
fn telling(lines: &[String]) -> String {
    let find = |marks: &[&str]| {
        lines.iter().rev().find(|line| marks.iter().any(|mark| line.contains(mark)))
    };
    find(&["failed to start", "unable to configure", "level=fatal"])
        .or_else(|| find(&["level=error"]))
        .or_else(|| lines.last())
        .cloned()
        .unwrap_or_else(|| "it said nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_reason_is_told() {
        let lines = [
            "level=error msg=\"no network\"",
            "failed to start daemon: driver not supported",
            "level=info msg=\"bye\"",
        ]
        .map(str::to_owned);
        assert!(telling(&lines).starts_with("failed to start daemon"));
        assert!(telling(&lines[..1]).contains("no network"));
        assert_eq!(telling(&[]), "it said nothing");
        let error = DaemonError::Ended { status: "exit status: 1".into(), last: lines.to_vec() };
        assert!(error.to_string().contains("driver not supported"), "{error}");
        assert_eq!(error.last_lines().len(), 3);
    }
}

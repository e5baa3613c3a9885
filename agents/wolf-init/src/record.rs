//! The status file while it is written: every change at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use wolfpack_dockerd::place::StepFailed;
use wolfpack_dockerd::status::{InitStatus, Outcome, State, Step};
use wolfpack_runtime::clock;

/// The status, kept and written. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    run_dir: PathBuf,
    status: Arc<Mutex<InitStatus>>,
}

impl Record {
    /// A fresh one, for a container that starts.
    pub(crate) fn fresh(run_dir: &Path) -> Self {
        Self::of(run_dir, InitStatus { since: now(), ..InitStatus::default() })
    }

    /// Goes on with the one that PID 1 began.
    pub(crate) fn go_on(run_dir: &Path) -> Self {
        let begun = InitStatus::read(run_dir);
        Self::of(
            run_dir,
            begun.unwrap_or_else(|_| InitStatus { since: now(), ..InitStatus::default() }),
        )
    }

    fn of(run_dir: &Path, status: InitStatus) -> Self {
        Self { run_dir: run_dir.to_owned(), status: Arc::new(Mutex::new(status)) }
    }

    /// Changes the status and writes it. A file that cannot be written is not
    /// worth the wolf: it is said, and the file is old.
    pub(crate) fn change(&self, change: impl FnOnce(&mut InitStatus)) {
        let mut status = self.status.lock();
        change(&mut status);
        if let Err(error) = status.write(&self.run_dir) {
            tracing::warn!(%error, folder = %self.run_dir.display(), "the status is not written");
        }
    }

    /// A step that is over.
    pub(crate) fn step(&self, name: &str, outcome: Outcome, note: &str, took: Duration) {
        let step = Step {
            name: name.to_owned(),
            outcome,
            note: note.to_owned(),
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        match outcome {
            Outcome::Done => tracing::info!(step = name, millis = step.millis, "{note}"),
            Outcome::Degraded => tracing::warn!(step = name, "degraded: {note}"),
        }
        self.change(|status| status.steps.push(step));
    }

    /// The step that ends the start. It is also said in plain words: whoever
    /// reads `docker logs` must find it.
    pub(crate) fn failed(&self, failed: &StepFailed) {
        eprintln!("wolfpack-wolf-init: {failed}");
        self.change(|status| {
            status.state = State::Failed;
            status.failed = Some(failed.clone());
        });
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    clock::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

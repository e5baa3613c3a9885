//! What a process holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::machine;
use crate::processes::pid;

/// One look at a process.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Held {
    pub(super) rss_kib: f64,
    pub(super) fds: usize,
    /// Tasks that are alive, as the process told last, at most a second ago.
    pub(super) tasks: usize,
}

/// A part that tells its tasks.
pub(super) struct Watched {
    pid: u32,
    tasks: Arc<AtomicUsize>,
}

impl Watched {
    /// Listens to a part that was started with its output piped, to its end.
    pub(super) fn of(part: &mut Child) -> anyhow::Result<Self> {
        let output = part.stdout.take().context("the part tells nothing")?;
        let tasks = Arc::new(AtomicUsize::new(0));
        let last = tasks.clone();
        // Ends with the part's output.
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(count) = line.strip_prefix("tasks ").and_then(|text| text.parse().ok())
                {
                    last.store(count, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { pid: pid(part)?, tasks })
    }

    /// Looks at it.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn held(&self) -> anyhow::Result<Held> {
        let look = || -> anyhow::Result<Held> {
            Ok(Held {
                rss_kib: machine::resident_kib(self.pid)?,
                fds: machine::files(self.pid)?,
                tasks: self.tasks.load(Ordering::Relaxed),
            })
        };
        look().context("a process of the soak has ended")
    }
}

//! How one listener comes to its end, within a bound whatever its peers do.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::profile::Profile;

/// The three steps of an end, and who is still there.
#[derive(Clone, Default)]
pub(crate) struct Drain {
    /// GOAWAY: no new streams.
    pub(crate) begin: CancellationToken,
    /// Streams end with a status.
    pub(crate) stop_streams: CancellationToken,
    /// What is left is dropped.
    pub(crate) cut: CancellationToken,
    /// Connections and the streams on them.
    pub(crate) tasks: TaskTracker,
}

impl Drain {
    /// Goes through the steps; streams end early once `done` is cancelled.
    /// Returns how many tasks had to be dropped.
    pub(crate) async fn run(&self, profile: &Profile, done: &CancellationToken) -> usize {
        let end = Instant::now() + profile.drain;
        self.begin.cancel();
        self.tasks.close();
        let soon = end.min(Instant::now() + profile.stream_drain);
        tokio::select! {
            () = self.tasks.wait() => return 0,
            () = tokio::time::sleep_until(soon) => {}
            () = done.cancelled() => {}
        }
        self.stop_streams.cancel();
        if timeout_at(end, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.cut.cancel();
        // Dropping is quick; a task that blocks its thread is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        left
    }
}

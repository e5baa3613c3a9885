//! The end, in order: the agent, so that nobody makes sandboxes; the
//! sandboxes; the engine. Each has its part of the deadline.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use wolfpack_dockerd::daemon::{Daemon, stop_containers};

/// What the engine gets at least, whatever the others took.
const ENGINE: Duration = Duration::from_secs(1);

/// Ends the sandboxes and then the engine, by `until`; whether nothing had to
/// be killed.
pub(crate) async fn end(daemon: Option<Daemon>, socket: &Path, until: Instant) -> bool {
    // One that is away was killed or crashes: the container's end ends all.
    let Some(daemon) = daemon else { return false };
    let left = until.saturating_duration_since(Instant::now());
    let all_ended = match stop_containers(socket, left / 2).await {
        Ok((all, still)) => {
            tracing::info!(all, still, "sandboxes ended");
            still == 0
        }
        Err(error) => {
            tracing::warn!(error, "sandboxes are not ended in order");
            false
        }
    };
    let left = until.saturating_duration_since(Instant::now()).max(ENGINE);
    daemon.stop(left).await && all_ended
}

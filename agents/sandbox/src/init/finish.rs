//! The end of the container: whatever still runs is asked to end, then made to.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use crate::process::tree;

/// How long the main process may take after SIGTERM. Engines kill the container
/// after 10 s by default, and the rest needs some of that.
pub const MAIN_GRACE: Duration = Duration::from_secs(7);

/// How long everything else may take after its SIGTERM.
pub const OTHERS_GRACE: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(10);

/// Ends every process of the container but this one: SIGTERM, at most
/// [`OTHERS_GRACE`], SIGKILL. How many had to be killed. Does nothing unless
/// this is PID 1: anywhere else they are not ours.
pub async fn end_others() -> usize {
    if rustix::process::getpid() != Pid::INIT {
        return 0;
    }
    let deadline = Instant::now() + OTHERS_GRACE;
    for pid in tree::others() {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        // One that is stopped gets its SIGTERM only when it goes on.
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
    while Instant::now() < deadline {
        if tree::others().is_empty() {
            return 0;
        }
        tokio::time::sleep(POLL).await;
    }
    let left = tree::others();
    for pid in &left {
        let _ = rustix::process::kill_process(*pid, Signal::KILL);
    }
    left.len()
}

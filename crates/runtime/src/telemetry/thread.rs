//! Threads that work for one service only.

use std::cell::Cell;
use std::future::Future;

use tokio::task::JoinHandle;
use tracing::dispatcher::{DefaultGuard, set_default};
use tracing::instrument::WithSubscriber as _;

use super::Telemetry;

thread_local! {
    static OWNED: Cell<bool> = const { Cell::new(false) };
}

/// As long as it lives, all that its thread does is of one service.
#[derive(Debug)]
pub struct OwnThread {
    _default: DefaultGuard,
}

impl Telemetry {
    /// Makes the calling thread this service's own: its tasks need not carry the
    /// telemetry with them, which costs more than many of them do.
    #[must_use]
    pub fn own_thread(&self) -> OwnThread {
        OWNED.set(true);
        OwnThread { _default: set_default(&self.dispatch()) }
    }

    /// Spawns a task that logs and traces as this service.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        spawn_as(&self.inner.dispatch, future)
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        OWNED.set(false);
    }
}

/// Spawns a task under a subscriber. On a thread that is one service's own the
/// task runs under the thread's: who works for another service does not spawn
/// there.
pub fn spawn_as<F>(dispatch: &tracing::Dispatch, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    if OWNED.get() {
        tokio::spawn(future)
    } else {
        tokio::spawn(future.with_subscriber(dispatch.clone()))
    }
}

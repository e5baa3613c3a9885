//! Named tasks with a declared failure policy. Every task of a process is
//! spawned here, so that a stop can wait for all of them and name those that
//! did not end.

mod policy;
mod tasks;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::process::BoxError;
use crate::telemetry::Telemetry;
use policy::Outcome;
pub use policy::Policy;
use tasks::{Metrics, Tasks};

/// How long aborted tasks get to drop what they hold.
const ABORT_GRACE: Duration = Duration::from_millis(250);

/// Spawns, watches and stops tasks; cheap to clone. A child stops with its
/// parent, and the parent's shutdown waits for the child's tasks too.
#[derive(Clone)]
pub struct Supervisor {
    telemetry: Telemetry,
    token: CancellationToken,
    tasks: Arc<Tasks>,
    metrics: Metrics,
    /// One for the whole tree: an essential task stops the process.
    failed: Arc<watch::Sender<Option<String>>>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("running", &self.running()).finish_non_exhaustive()
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Tasks that did not end within the deadline and were aborted.
    pub aborted: Vec<&'static str>,
    /// Tasks that ended neither by themselves nor by the abort: they block
    /// their thread.
    pub stuck: Vec<&'static str>,
}

impl Supervisor {
    /// A supervisor whose tasks log and trace as `telemetry`.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        let metrics = Metrics::new(&telemetry);
        Self {
            telemetry,
            token: CancellationToken::new(),
            tasks: Arc::default(),
            metrics,
            failed: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Cancelled when the tasks should end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Telemetry of the tasks.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// How many tasks run now, those of children included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tasks.running()
    }

    /// A supervisor with a token of its own that also ends with this one's. A
    /// failure of one of its essential tasks is this one's failure.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tasks: self.tasks.child(), ..self.clone() }
    }

    /// As [`Supervisor::child`], for tasks of another service of the process:
    /// they log and trace as `telemetry`.
    #[must_use]
    pub fn child_as(&self, telemetry: Telemetry) -> Self {
        Self { metrics: Metrics::new(&telemetry), telemetry, ..self.child() }
    }

    /// Runs a task whose end is normal; a panic is logged and counted. The task
    /// should end soon after the token is cancelled.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        // Each future around another holds it twice: as it came and as it runs.
        let future = Box::pin(future);
        self.start(name, Policy::Plain, async move {
            this.caught(name, future.map(|()| Ok(()))).await;
        });
    }

    /// Runs a task whose end before the shutdown, error or panic stops the
    /// process with exit code 1.
    pub fn spawn_essential<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let this = self.clone();
        self.start(name, Policy::Essential, async move {
            let outcome = this.caught(name, future).await;
            if let Some(why) = outcome.failure_of_essential(this.token.is_cancelled()) {
                tracing::error!(task = name, why, "an essential task failed; the process stops");
                this.failed.send_if_modified(|failed| {
                    let first = failed.is_none();
                    failed.get_or_insert_with(|| format!("{name}: {why}"));
                    first
                });
            }
        });
    }

    /// Runs a task that is made anew whenever it ends, until the shutdown, with
    /// a full-jitter back-off of 0.1 to 5 s that a healthy half minute resets.
    pub fn spawn_restarting<F, Fut>(&self, name: &'static str, make: F)
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send,
    {
        let this = self.clone();
        self.start(name, Policy::Restart, async move {
            let mut backoff = policy::Backoff::default();
            while !this.token.is_cancelled() {
                let begin = tokio::time::Instant::now();
                let outcome = this.caught(name, make()).await;
                if this.token.is_cancelled() {
                    break;
                }
                let pause = backoff.after_run_of(begin.elapsed());
                this.metrics.restarted(name);
                let why = outcome.words();
                tracing::warn!(task = name, why, ?pause, "a task ended; it is restarted");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = this.token.cancelled() => {}
                }
            }
        });
    }

    /// Resolves when an essential task of this tree failed, with its name and
    /// why; never otherwise.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        // The guard must not live over an await, or no task could wait for this.
        let why = failed.wait_for(Option::is_some).await.map(|why| why.clone());
        match why {
            Ok(why) => why.unwrap_or_default(),
            // We hold the sender; this cannot be.
            Err(_) => std::future::pending().await,
        }
    }

    /// Cancels the token, waits until all tasks ended, aborts what is left at
    /// the deadline and names it. A task spawned after that does not run.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.token.cancel();
        let mut report = ShutdownReport::default();
        if tokio::time::timeout(deadline, self.tasks.empty()).await.is_err() {
            report.aborted = self.tasks.abort();
            tracing::warn!(tasks = ?report.aborted, "tasks did not end in time and were aborted");
            if tokio::time::timeout(ABORT_GRACE, self.tasks.empty()).await.is_err() {
                report.stuck = self.tasks.names();
                tracing::error!(tasks = ?report.stuck, "tasks block their threads");
            }
        }
        self.tasks.close();
        report
    }

    /// Resolves once the token is cancelled and the last task has ended.
    pub async fn ended(&self) {
        self.token.cancelled().await;
        self.tasks.empty().await;
    }

    /// Drives one run of a task, and tells an end from an error from a panic.
    async fn caught<F>(&self, name: &'static str, future: F) -> Outcome
    where
        F: Future<Output = Result<(), BoxError>> + Send,
    {
        match AssertUnwindSafe(future).catch_unwind().await {
            Ok(Ok(())) => Outcome::Ended,
            Ok(Err(error)) => Outcome::Failed(chain(error.as_ref())),
            Err(payload) => {
                self.metrics.panicked(name);
                let words = payload
                    .downcast_ref::<&'static str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                tracing::error!(task = name, "a task panicked: {words}");
                Outcome::Panicked(words)
            }
        }
    }

    fn start<F>(&self, name: &'static str, policy: Policy, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(guard) = self.tasks.enter(name) else {
            tracing::debug!(task = name, "not started: the supervisor has shut down");
            return;
        };
        let id = guard.id();
        let metrics = self.metrics.clone();
        let task = async move {
            let _guard = guard;
            let _counted = metrics.running(name, policy);
            future.await;
        };
        let handle = self.telemetry.spawn(task);
        self.tasks.started(id, handle.abort_handle());
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;

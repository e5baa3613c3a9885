//! The parts that run: five services and a wolf agent, each with its own
//! telemetry and supervisor, stopped in the order that lets work finish.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::task::JoinHandle;
use tracing::instrument::WithSubscriber as _;
use wolfpack_runtime::{BoxError, Context};

/// How long one part may drain before it is cut off.
const DRAIN: Duration = Duration::from_secs(10);
/// How long its tasks, and then its exports, may take after that.
const TAIL: Duration = Duration::from_secs(3);

struct Part {
    name: &'static str,
    context: Context,
    run: Option<JoinHandle<Result<(), BoxError>>>,
}

/// The parts, in the order they were started.
#[derive(Default)]
pub(super) struct Parts(Vec<Part>);

impl Parts {
    /// Runs a part until its token is cancelled.
    pub(super) fn run<F>(&mut self, name: &'static str, context: Context, run: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let dispatch = context.telemetry.dispatch();
        let run = Some(tokio::spawn(run.with_subscriber(dispatch)));
        self.0.push(Part { name, context, run });
    }

    /// Resolves when a part ended by itself or one of its essential tasks did;
    /// says which and why.
    pub(super) async fn failed(&mut self) -> String {
        let mut watched: FuturesUnordered<_> = self
            .0
            .iter_mut()
            .map(|part| {
                let (name, supervisor) = (part.name, part.context.supervisor.clone());
                let run = &mut part.run;
                async move {
                    let ended = async {
                        match run {
                            Some(run) => {
                                let ended = run.await;
                                match ended {
                                    Ok(Ok(())) => "it ended".to_owned(),
                                    Ok(Err(error)) => error.to_string(),
                                    Err(error) => error.to_string(),
                                }
                            }
                            None => std::future::pending().await,
                        }
                    };
                    let why = tokio::select! {
                        why = ended => why,
                        why = supervisor.failed() => why,
                    };
                    format!("{name} failed: {why}")
                }
                .boxed()
            })
            .collect();
        match watched.next().await {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Stops the parts, the last one started first: the wolf agent and the
    /// gateway before the services they call.
    pub(super) async fn stop(self) {
        let mut left: Vec<Part> = self.0;
        while let Some(mut part) = left.pop() {
            part.context.supervisor.token().cancel();
            // The registry and the broker call each other: with one gone, the other has nobody
            // to serve and would only warn of calls that fail.
            if let [last] = left.as_slice() {
                last.context.supervisor.token().cancel();
            }
            if let Some(run) = part.run.take()
                && !run.is_finished()
            {
                let abort = run.abort_handle();
                if tokio::time::timeout(DRAIN, run).await.is_err() {
                    tracing::warn!(part = part.name, "did not drain in time; cut off");
                    abort.abort();
                }
            }
            let report = part.context.supervisor.shutdown(TAIL).await;
            if !report.aborted.is_empty() {
                tracing::warn!(part = part.name, aborted = ?report.aborted, "tasks did not end in time");
            }
            part.context.telemetry.flush(TAIL).await;
        }
    }
}

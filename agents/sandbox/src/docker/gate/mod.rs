//! Who wants the engine comes by here: the first one starts it, all who come
//! meanwhile wait for that one start, and when it has gone the next use starts
//! it anew.

pub mod backoff;
pub mod keeper;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wolfpack_runtime::Supervisor;

use super::order::{DiskUse, Report};
use super::refusal::Refusal;
use backoff::Backoff;

/// An engine that does not answer by then is stopped and counts as failed.
/// Longer than what the keeping process allows itself, whose reason is better.
const START_DEADLINE: Duration = Duration::from_secs(45);
/// Asks that wait for the gate's attention; each is answered or queued at once.
const ASKS: usize = 64;
/// An engine that was told to stop and does not is killed then.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Starts engines.
#[async_trait]
pub trait Starter: Debug + Send + Sync + 'static {
    /// Begins a start; with `cleaning` the engine may only make room.
    ///
    /// # Errors
    /// When not even the process that keeps the engine could be started.
    async fn start(&self, cleaning: bool) -> Result<Started, Refusal>;
}

/// A start that has begun.
pub struct Started {
    /// What it tells; ends when nothing of it is left.
    pub reports: mpsc::Receiver<Report>,
    /// Dropped to ask it to stop.
    pub leash: Box<dyn Send>,
    /// Dropped to kill it, when it has not ended.
    pub guard: Box<dyn Send>,
}

/// An engine that answers.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its own socket.
    pub socket: PathBuf,
    /// Set while it may only make room.
    pub restricted: watch::Receiver<Option<DiskUse>>,
}

type Ask = oneshot::Sender<Result<Ready, Refusal>>;

/// The gate; cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    asks: mpsc::Sender<Ask>,
    up: watch::Receiver<Option<Ready>>,
    stop: CancellationToken,
}

impl Gate {
    /// A gate without an engine yet. Its task ends with the supervisor's token,
    /// after it has asked the engine to stop.
    #[must_use]
    pub fn start(starter: Arc<dyn Starter>, supervisor: &Supervisor) -> Self {
        let (asks, asked) = mpsc::channel(ASKS);
        let (up, seen) = watch::channel(None);
        let stop = supervisor.token().child_token();
        let keeper = Keeper {
            starter,
            asked,
            up,
            stop: stop.clone(),
            restricted: watch::channel(None).0,
            backoff: Backoff::default(),
        };
        supervisor.spawn("docker", keeper.run());
        Self { asks, up: seen, stop }
    }

    /// The engine; started when it does not run. Bounded by the start's own
    /// deadline.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn engine(&self) -> Result<Ready, Refusal> {
        let (ask, answer) = oneshot::channel();
        let ending = || Refusal::failed("the sandbox ends; its engine is not started any more");
        self.asks.send(ask).await.map_err(|_gone| ending())?;
        answer.await.unwrap_or_else(|_gone| Err(ending()))
    }

    /// The engine if it runs now; starts nothing.
    #[must_use]
    pub fn running(&self) -> Option<Ready> {
        self.up.borrow().clone()
    }

    /// Ends the engine and lets nobody start it again; at most `patience`.
    pub async fn stop(&self, patience: Duration) {
        self.stop.cancel();
        // The keeper has gone when nobody receives asks any more.
        let _ = tokio::time::timeout(patience, self.asks.closed()).await;
    }
}

struct Keeper {
    starter: Arc<dyn Starter>,
    asked: mpsc::Receiver<Ask>,
    up: watch::Sender<Option<Ready>>,
    stop: CancellationToken,
    restricted: watch::Sender<Option<DiskUse>>,
    backoff: Backoff,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let first = tokio::select! {
                ask = self.asked.recv() => ask,
                () = self.stop.cancelled() => None,
            };
            let Some(first) = first else { return };
            if let Some(refusal) = self.backoff.refuses(Instant::now()) {
                let _ = first.send(Err(refusal));
                continue;
            }
            let mut waiting = vec![first];
            match self.bring_up(&mut waiting).await {
                Ok((ready, started)) => {
                    for ask in waiting {
                        let _ = ask.send(Ok(ready.clone()));
                    }
                    self.up.send_replace(Some(ready.clone()));
                    let since = Instant::now();
                    let why = self.attend(&ready, started).await;
                    self.up.send_replace(None);
                    if let Some(refusal) = why {
                        warn!(%refusal, "the sandbox's engine has gone");
                        self.backoff.ended(refusal, since, Instant::now());
                    }
                }
                Err(refusal) => {
                    warn!(%refusal, "the sandbox's engine did not start");
                    self.backoff.failed(refusal.clone(), Instant::now());
                    for ask in waiting {
                        let _ = ask.send(Err(refusal.clone()));
                    }
                }
            }
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    /// Starts it while others who ask join the wait.
    async fn bring_up(&mut self, waiting: &mut Vec<Ask>) -> Result<(Ready, Started), Refusal> {
        let cleaning = self.restricted.borrow().is_some();
        let starter = Arc::clone(&self.starter);
        let coming = async {
            let mut started = starter.start(cleaning).await?;
            match started.reports.recv().await {
                Some(Report::Ready { socket, version, storage_driver, took_ms }) => {
                    info!(version, storage_driver, took_ms, cleaning, "the sandbox's engine runs");
                    Ok((socket, started))
                }
                Some(Report::Down { cause, why }) => Err(Refusal { cause, message: why }),
                Some(report) => {
                    Err(Refusal::failed(format!("the engine told {report:?} at its start")))
                }
                None => Err(Refusal::failed(
                    "the process that keeps the sandbox's engine ended at its start; see agent.log",
                )),
            }
        };
        let mut coming = std::pin::pin!(tokio::time::timeout(START_DEADLINE, coming));
        loop {
            tokio::select! {
                come = &mut coming => {
                    let late = || Refusal::failed(format!(
                        "the sandbox's engine did not answer within {} s", START_DEADLINE.as_secs()
                    ));
                    let (socket, started) = come.map_err(|_elapsed| late())??;
                    return Ok((Ready { socket, restricted: self.restricted.subscribe() }, started));
                }
                Some(ask) = self.asked.recv() => waiting.push(ask),
                () = self.stop.cancelled() => {
                    return Err(Refusal::failed("the sandbox ends while its engine starts"));
                }
            }
        }
    }

    /// Answers while it runs; why it does not any more, `None` when that is as
    /// it should be.
    async fn attend(&mut self, ready: &Ready, mut started: Started) -> Option<Refusal> {
        loop {
            tokio::select! {
                Some(ask) = self.asked.recv() => {
                    let _ = ask.send(Ok(ready.clone()));
                }
                report = started.reports.recv() => match report {
                    Some(Report::Full(disk)) => {
                        warn!(used = disk.used, limit = disk.limit, "the engine's data is too large");
                        self.restricted.send_replace(Some(disk));
                        self.drain(started).await;
                        return None;
                    }
                    Some(Report::Roomy(disk)) => {
                        info!(used = disk.used, limit = disk.limit, "the engine has room again");
                        self.restricted.send_replace(None);
                    }
                    Some(Report::Down { cause, why }) => return Some(Refusal { cause, message: why }),
                    Some(Report::Ready { .. }) => {}
                    None => return Some(Refusal::failed("the process that keeps the engine was ended")),
                },
                () = self.stop.cancelled() => {
                    self.drain(started).await;
                    return None;
                }
            }
        }
    }

    /// Asks it to stop and waits until nothing of it is left, or kills it.
    async fn drain(&self, started: Started) {
        let Started { mut reports, leash, guard } = started;
        drop(leash);
        let gone = async { while reports.recv().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_PATIENCE, gone).await;
        drop(guard);
    }
}

#[cfg(test)]
mod tests;

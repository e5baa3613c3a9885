//! Takes the leadership, renews it, gives it up.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::BoxError;
use wolfpack_store::Engine;

use super::{FileLock, Lead, Leadership};
use crate::config::LeadershipConfig;
use crate::store::{ShardStore, Term};

/// The task that keeps this process leading, or waiting to.
#[derive(Clone)]
pub struct Elector {
    /// The row.
    pub shard: ShardStore,
    /// On SQLite: the file whose lock stands for the row's time.
    pub lock_file: Option<PathBuf>,
    /// Times.
    pub times: LeadershipConfig,
    /// Where it is told.
    pub leadership: Leadership,
    /// Ends the task: the leadership is given up then.
    pub stop: CancellationToken,
}

impl Elector {
    /// Runs until stopped.
    ///
    /// # Errors
    /// When the lock file cannot be used; failures of the database are waited
    /// out.
    pub async fn run(self) -> Result<(), BoxError> {
        while !self.stop.is_cancelled() {
            if self.shard.engine() == Engine::Sqlite {
                let lock = match &self.lock_file {
                    Some(path) => FileLock::try_take(path)?.map(Some),
                    None => Some(None),
                };
                if let Some(lock) = lock {
                    self.lead().await;
                    drop(lock);
                }
            } else {
                self.lead().await;
            }
            self.pause(self.times.renew).await;
        }
        Ok(())
    }

    /// One leadership from its beginning to its end, if there is one.
    async fn lead(&self) {
        let sent_at = Instant::now();
        let mut lead = match timeout(self.times.step_down, self.shard.acquire()).await {
            Ok(Ok(Some(term))) => Lead::new(term, sent_at),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the leadership cannot be asked for");
                return;
            }
            Err(_) => {
                tracing::warn!("the database did not answer in time");
                return;
            }
        };
        tracing::info!(epoch = lead.term.epoch(), "this scheduler leads");
        self.leadership.won(lead.clone());
        while lead.renewed_at.elapsed() < self.times.step_down {
            self.pause(self.times.renew).await;
            if self.stop.is_cancelled() {
                self.give_up(&lead.term).await;
                return;
            }
            let sent_at = Instant::now();
            let left = self.times.step_down.saturating_sub(lead.renewed_at.elapsed());
            match timeout(left, self.shard.renew(&lead.term)).await {
                Ok(Ok(Some(term))) => {
                    lead = Lead::new(term, sent_at);
                    self.leadership.won(lead.clone());
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => tracing::warn!(%error, "the leadership was not renewed"),
                Err(_) => tracing::warn!("the database did not answer in time"),
            }
        }
        tracing::warn!(epoch = lead.term.epoch(), "this scheduler no longer leads");
        self.leadership.lost(lead.term.epoch());
    }

    async fn give_up(&self, term: &Term) {
        self.leadership.lost(term.epoch());
        match timeout(Duration::from_secs(1), self.shard.release(term)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the leadership was not given up"),
            Err(_) => tracing::warn!("the leadership was not given up in time"),
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

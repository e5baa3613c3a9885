//! Looking at every row without a reason: what an event missed, or what a
//! replica that died left behind.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wolfpack_types::WolfId;

use crate::config::RetentionConfig;
use crate::domain::decide;
use crate::reconcile::{Reconciler, observe};
use crate::store::{Error, Sandbox};

/// Rows that are read at a time.
const BATCH: u64 = 500;

impl Reconciler {
    /// Looks at every row now and then, until the token is cancelled.
    pub(crate) async fn resync(&self, token: CancellationToken) {
        while !token.is_cancelled() {
            if let Err(error) = self.look_at_all().await {
                tracing::warn!(%error, "the rows cannot be read; trying again");
            }
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(self.config.resync) => {}
                () = self.all.notified() => {}
            }
        }
    }

    /// Looks at what each wolf that changed concerns, until the token is
    /// cancelled.
    pub(crate) async fn follow_wolves(&self, token: CancellationToken) {
        loop {
            let looked = async {
                let wolves = self.changed.next().await;
                self.look_at_those_on(&wolves).await
            };
            let looked = tokio::select! {
                () = token.cancelled() => return,
                looked = looked => looked,
            };
            if let Err(error) = looked {
                // The next resync looks at them.
                tracing::warn!(%error, "the sandboxes of wolves that changed cannot be read");
            }
        }
    }

    /// Wakes the sandboxes on these wolves, and those that look for any, where
    /// there is something to do.
    async fn look_at_those_on(&self, wolves: &[WolfId]) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let rows = self.sandboxes.on_wolves(wolves, &after, BATCH).await?;
            let Some(last) = rows.last() else { break };
            after = last.id.to_string();
            self.wake_those_in_need(&rows);
        }
        after.clear();
        loop {
            let rows = self.sandboxes.looking_for_a_wolf(&after, BATCH).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.id.to_string();
            self.wake_those_in_need(&rows);
        }
    }

    /// Wakes the rows among these that have something to do here.
    fn wake_those_in_need(&self, rows: &[Sandbox]) {
        for row in rows.iter().filter(|row| self.needs_a_look(row)) {
            self.queue.wake(&row.id);
        }
    }

    async fn look_at_all(&self) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let rows = self.sandboxes.unsettled(&after, BATCH).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.id.to_string();
            self.wake_those_in_need(&rows);
        }
    }

    fn needs_a_look(&self, row: &Sandbox) -> bool {
        let now = self.sandboxes.now();
        let anothers = row.owner.holder.as_deref() != Some(self.holder.as_str());
        if anothers && row.owner.until > now {
            return false;
        }
        let base = observe::base(row, &self.config, now, false, false);
        observe::glance(&self.fleet, row, base)
            .is_none_or(|facts| !decide(&row.record, &facts).is_idle())
    }

    /// Removes what is too old to keep, now and then, until the token is
    /// cancelled.
    pub(crate) async fn purge(&self, config: RetentionConfig, token: CancellationToken) {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(config.sweep) => {}
            }
            if let Err(error) = self.purge_once(&config).await {
                tracing::warn!(%error, "old rows cannot be removed; trying again");
            }
        }
    }

    async fn purge_once(&self, config: &RetentionConfig) -> Result<(), Error> {
        let keep = chrono::TimeDelta::from_std(config.deleted).unwrap_or(chrono::TimeDelta::MAX);
        loop {
            let gone = self.sandboxes.purge(keep, BATCH).await?;
            if gone > 0 {
                self.feed.poke();
            }
            if (gone as u64) < BATCH {
                break;
            }
            // Others want to write, too.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.sandboxes.forget_requests(config.request_ids).await
    }
}

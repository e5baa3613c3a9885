//! One row while it is worked on: owned, changed, saved.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use wolfpack_types::{Reason, SandboxId};

use crate::domain::Record;
use crate::reconcile::Queue;
use crate::reconcile::trouble::Trouble;
use crate::store::{Sandbox, Sandboxes};

/// A row that this replica works on.
pub(super) struct Session {
    pub(super) row: Sandbox,
    /// Steps whose note is not saved yet: repeating them is harmless.
    unsaved: bool,
    /// The agent answered that it is ready, in this session.
    pub(super) agent_ready: bool,
    /// The scheduler said that the reservation has ended, in this session.
    pub(super) reservation_ended: bool,
    /// How often the wolf failed to create it, in this session.
    pub(super) create_failures: u32,
    sandboxes: Sandboxes,
    queue: Queue,
    holder: String,
    lease: Duration,
}

impl Session {
    pub(super) fn new(
        row: Sandbox,
        sandboxes: Sandboxes,
        queue: Queue,
        holder: String,
        lease: Duration,
    ) -> Self {
        Self {
            row,
            unsaved: false,
            agent_ready: false,
            reservation_ended: false,
            create_failures: 0,
            sandboxes,
            queue,
            holder,
            lease,
        }
    }

    pub(super) fn id(&self) -> &SandboxId {
        &self.row.id
    }

    pub(super) fn record(&self) -> &Record {
        &self.row.record
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.sandboxes.now()
    }

    pub(super) fn epoch(&self) -> i64 {
        self.row.owner.epoch
    }

    /// Reads the row again. Answers whether there still is one. What was not
    /// saved is forgotten, and what was seen of another boot.
    pub(super) async fn reload(&mut self) -> Result<bool, Trouble> {
        let Some(row) = self.sandboxes.get(&self.row.id).await? else { return Ok(false) };
        self.take(row);
        Ok(true)
    }

    fn take(&mut self, row: Sandbox) {
        let boot = |row: &Sandbox| row.record.boot.as_ref().map(|boot| boot.execution.clone());
        if boot(&row) != boot(&self.row) {
            self.new_boot();
        }
        self.row = row;
        self.unsaved = false;
    }

    /// What was seen of the last boot says nothing about the next.
    pub(super) fn new_boot(&mut self) {
        self.agent_ready = false;
        self.reservation_ended = false;
        self.create_failures = 0;
    }

    fn is_mine(&self) -> bool {
        self.row.owner.holder.as_deref() == Some(self.holder.as_str())
    }

    /// Whether another replica works on it now.
    pub(super) fn is_anothers(&self) -> bool {
        !self.is_mine() && self.row.owner.until > self.now()
    }

    /// Whether this replica owns it for long enough to do a step.
    fn is_held(&self) -> bool {
        let enough = TimeDelta::from_std(self.lease / 3).unwrap_or_default();
        self.is_mine() && self.row.owner.until > self.now() + enough
    }

    /// Makes this replica the owner. Answers false when another one is.
    ///
    /// # Errors
    /// [`Trouble::Changed`] when the row is not what was read: decide anew.
    pub(super) async fn own(&mut self) -> Result<bool, Trouble> {
        if self.is_held() {
            return Ok(true);
        }
        let version = self.row.version;
        let Some(row) = self.sandboxes.claim(&self.row.id, &self.holder, self.lease).await? else {
            return Ok(false);
        };
        if row.version != version {
            self.take(row);
            return Err(Trouble::Changed);
        }
        self.row.owner = row.owner;
        Ok(true)
    }

    /// Keeps the row owned while a step runs; ends when it is no longer.
    pub(super) fn keep(&self) -> impl Future<Output = Trouble> + Send + use<> {
        let (sandboxes, id) = (self.sandboxes.clone(), self.row.id.clone());
        let (holder, epoch, lease) = (self.holder.clone(), self.row.owner.epoch, self.lease);
        async move {
            loop {
                tokio::time::sleep(lease / 3).await;
                match sandboxes.renew(&id, &holder, epoch, lease).await {
                    Ok(true) => {}
                    Ok(false) => return Trouble::Changed,
                    Err(error) => {
                        tracing::warn!(sandbox = %id, %error, "the row cannot be renewed");
                    }
                }
            }
        }
    }

    /// Saves what was changed.
    ///
    /// # Errors
    /// [`Trouble::Changed`] when another wrote or claimed it since.
    pub(super) async fn save(&mut self) -> Result<(), Trouble> {
        self.row.owner.until = self.now() + TimeDelta::from_std(self.lease).unwrap_or_default();
        self.row = self.sandboxes.save(&self.row).await?;
        self.unsaved = false;
        self.queue.wrote(&self.row.id, self.row.version);
        Ok(())
    }

    /// Notes a step whose record can wait for the next save.
    pub(super) fn save_later(&mut self) {
        self.unsaved = true;
    }

    /// Saves what could wait, and lets the row go.
    pub(super) async fn close(&mut self) -> Result<(), Trouble> {
        if self.unsaved {
            self.save().await?;
        }
        if self.is_mine() && self.row.owner.until > self.now() {
            self.sandboxes.let_go(&self.row.id, &self.holder, self.row.owner.epoch).await?;
            self.row.owner.until = DateTime::UNIX_EPOCH;
        }
        Ok(())
    }

    /// Whether the row in the database is still the one that is worked on.
    pub(super) async fn is_current(&self) -> Result<bool, Trouble> {
        let row = self.sandboxes.get(&self.row.id).await?;
        Ok(row.is_some_and(|row| {
            row.version == self.row.version && row.owner.epoch == self.row.owner.epoch
        }))
    }

    /// Whether a reason means that the owner of a row was followed by another.
    pub(super) fn is_fenced(reason: Reason) -> bool {
        reason == Reason::OwnerFenced
    }
}

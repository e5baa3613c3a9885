//! One thing at a time for each sandbox: creates and removes of one sandbox
//! take turns, those of others do not wait.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;
use wolfpack_types::{ExecutionId, Fault, SandboxId};

use super::Progress;

/// The sandboxes that something is being done to.
#[derive(Debug, Clone, Default)]
pub(super) struct Lanes {
    lanes: Arc<Mutex<HashMap<SandboxId, Lane>>>,
}

#[derive(Debug, Default)]
struct Lane {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// How many hold or wait for the turn; the last one clears the lane away.
    users: usize,
    creating: Option<Creating>,
}

#[derive(Debug)]
struct Creating {
    execution: ExecutionId,
    cancel: CancellationToken,
    progress: watch::Receiver<Progress>,
}

/// A place in a sandbox's lane; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    lanes: Lanes,
    sandbox: SandboxId,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Set for a create: its boot.
    creating: Option<ExecutionId>,
}

/// What a create found.
#[derive(Debug)]
pub(super) enum Entry {
    /// This boot is being created already: watch that.
    Joined(watch::Receiver<Progress>),
    /// It is up to the caller now.
    New {
        place: Place,
        cancel: CancellationToken,
        report: watch::Sender<Progress>,
        progress: watch::Receiver<Progress>,
    },
}

impl Lanes {
    /// Enters for a create. `admit` decides with the lane locked, so nothing
    /// else of this sandbox comes between; it is told whether the boot is being
    /// created already, and a create of another boot is cancelled only after it
    /// said yes.
    pub(super) fn enter_create(
        &self,
        sandbox: &SandboxId,
        execution: &ExecutionId,
        parent: &CancellationToken,
        admit: impl FnOnce(bool) -> Result<(), Fault>,
    ) -> Result<Entry, Fault> {
        let mut lanes = self.lanes.lock();
        let under_way = lanes.get(sandbox).and_then(|lane| lane.creating.as_ref());
        if let Some(creating) = under_way
            && creating.execution == *execution
            && !creating.cancel.is_cancelled()
        {
            let progress = creating.progress.clone();
            admit(true)?;
            return Ok(Entry::Joined(progress));
        }
        admit(false)?;
        let lane = lanes.entry(sandbox.clone()).or_default();
        let cancel = parent.child_token();
        let (report, progress) = watch::channel(Progress::default());
        let creating = Creating {
            execution: execution.clone(),
            cancel: cancel.clone(),
            progress: progress.clone(),
        };
        if let Some(before) = lane.creating.replace(creating) {
            before.cancel.cancel();
        }
        let place = self.place(sandbox, lane, Some(execution.clone()));
        Ok(Entry::New { place, cancel, report, progress })
    }

    /// Enters for a removal, which cancels a create of the boot it is about.
    pub(super) fn enter_remove(
        &self,
        sandbox: &SandboxId,
        execution: Option<&ExecutionId>,
    ) -> Place {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(sandbox.clone()).or_default();
        if let Some(creating) = &lane.creating
            && execution.is_none_or(|boot| *boot == creating.execution)
        {
            creating.cancel.cancel();
        }
        self.place(sandbox, lane, None)
    }

    /// Enters where nothing is being done to a sandbox; what comes meanwhile
    /// waits.
    pub(super) fn enter_idle(&self, sandbox: &SandboxId) -> Option<Place> {
        let mut lanes = self.lanes.lock();
        if lanes.contains_key(sandbox) {
            return None;
        }
        let lane = lanes.entry(sandbox.clone()).or_default();
        Some(self.place(sandbox, lane, None))
    }

    /// Whether something is being done to a sandbox.
    pub(super) fn busy(&self, sandbox: &SandboxId) -> bool {
        self.lanes.lock().contains_key(sandbox)
    }

    fn place(&self, sandbox: &SandboxId, lane: &mut Lane, creating: Option<ExecutionId>) -> Place {
        lane.users += 1;
        Place { lanes: self.clone(), sandbox: sandbox.clone(), turn: lane.turn.clone(), creating }
    }
}

impl Place {
    /// Waits for the turn; in the order of entering.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lanes.lock();
        let Some(lane) = lanes.get_mut(&self.sandbox) else { return };
        // A newer create of the lane is not ours to clear.
        if self.creating.is_some()
            && lane.creating.as_ref().map(|creating| &creating.execution) == self.creating.as_ref()
        {
            lane.creating = None;
        }
        lane.users -= 1;
        if lane.users == 0 {
            lanes.remove(&self.sandbox);
        }
    }
}

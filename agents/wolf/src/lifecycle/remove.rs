//! Removing a sandbox: its container and all it had beside it, its directory,
//! its goods.

use tokio::sync::oneshot;
use tracing::Instrument as _;
use wolfpack_types::{ExecutionId, Fault, SandboxId};

use super::lanes::Place;
use super::{Lifecycle, blocking};
use crate::sandbox::{directory, labels};

impl Lifecycle {
    /// Kills and removes all a sandbox has here; with an execution, only that
    /// boot's. One that is not there is removed. Goes on when the caller goes.
    ///
    /// # Errors
    /// `OWNER_FENCED` when a newer owner has spoken, `ENGINE_FAILED` when the
    /// engine failed; then it is worth another call.
    pub async fn remove(
        &self,
        sandbox: SandboxId,
        execution: Option<ExecutionId>,
        owner_epoch: i64,
    ) -> Result<(), Fault> {
        // Before what runs was adopted nobody knows whose it is.
        self.ready().await?;
        let inner = &self.inner;
        let fenced = inner.admission.lock().fence(&sandbox, owner_epoch);
        fenced.map_err(|refusal| {
            inner.metrics.refused(refusal.kind());
            refusal.into_fault()
        })?;
        let place = inner.lanes.enter_remove(&sandbox, execution.as_ref());
        let (done, result) = oneshot::channel();
        let lifecycle = self.clone();
        let span = tracing::info_span!("remove_container", %sandbox, otel.kind = "internal");
        let work = async move {
            let removed = lifecycle.removal(place, &sandbox, execution.as_ref()).await;
            // A caller that went away does not need to know.
            let _ = done.send(removed);
        };
        inner.supervisor.spawn("remove-sandbox", work.instrument(span));
        result.await.unwrap_or_else(|_| {
            Err(Fault::new(
                wolfpack_types::Reason::ServerStopping,
                "the wolf's agent is stopping; try again",
            ))
        })
    }

    async fn removal(
        &self,
        place: Place,
        sandbox: &SandboxId,
        execution: Option<&ExecutionId>,
    ) -> Result<(), Fault> {
        let _turn = place.turn().await;
        let inner = &self.inner;
        let name = labels::container_name(&inner.settings.wolf, sandbox);
        let found = inner.engine.inspect(&name).await;
        let found = found.map_err(|error| error.into_fault("look for the container"))?;
        if let Some(found) = &found {
            let boot = labels::read(&found.labels).map(|(identity, _)| identity.execution);
            if execution.is_some() && boot.as_ref() != execution {
                // Another boot took its place: that one stays as it is.
                return Ok(());
            }
            let removed = inner.engine.remove(&found.id).await;
            removed.map_err(|error| error.into_fault("remove the container"))?;
            self.clear_belongings(sandbox, labels::docker(&found.labels)).await?;
            inner.observer.gone(&found.id);
            tracing::info!(container = found.id, "removed a sandbox");
        } else if execution.is_some_and(|boot| {
            inner.admission.lock().execution(sandbox).is_some_and(|held| held != boot)
        }) {
            return Ok(());
        } else {
            self.clear_whatever(sandbox).await?;
        }
        let (root, gone) = (inner.settings.root.clone(), sandbox.clone());
        blocking(move || directory::remove(&root, &gone)).await.map_err(Fault::internal)?;
        inner.admission.lock().release(sandbox, execution);
        inner.metrics.removed();
        Ok(())
    }
}

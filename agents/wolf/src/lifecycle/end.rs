//! Ending a sandbox that harms its wolf. Its container stays, so that its end
//! and its last words can be read, until its owner removes it.

use wolfpack_types::Reason;

use super::{Lifecycle, Observed};
use crate::engine::EngineError;

impl Lifecycle {
    /// Kills a container that was seen; its status then has this reason. Whether
    /// it was killed: not while something else is done to its sandbox.
    ///
    /// # Errors
    /// When the engine fails.
    pub(crate) async fn end(
        &self,
        seen: &Observed,
        reason: Reason,
        words: String,
    ) -> Result<bool, EngineError> {
        let (inner, id) = (&self.inner, &seen.container.id);
        let Some(place) = inner.lanes.enter_idle(&seen.identity.sandbox) else { return Ok(false) };
        let turn = place.turn().await;
        inner.observer.will_end(id, reason, words);
        let killed = inner.engine.kill(id).await;
        // One that is only slow ends all the same, a little later.
        if killed.as_ref().is_err_and(|error| !matches!(error, EngineError::Deadline { .. })) {
            inner.observer.did_not_end(id);
        }
        drop(turn);
        drop(place);
        killed?;
        // Its event says the same, a little later.
        inner.observer.look(id).await?;
        Ok(true)
    }
}

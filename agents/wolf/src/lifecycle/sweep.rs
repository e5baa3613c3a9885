//! Removing what nobody has any more: networks, volumes, siblings, mounts and
//! rules of sandboxes whose container is gone, as an agent or an engine leaves
//! them that ends in between.

use std::collections::BTreeSet;

use wolfpack_types::SandboxId;

use super::{Lifecycle, blocking};
use crate::engine::{EngineError, Labelled};
use crate::sandbox::labels;

impl Lifecycle {
    /// Looks around once. Nothing is done to a sandbox that has a container, or
    /// that something is being done to.
    ///
    /// # Errors
    /// When the engine cannot be asked; what cannot be removed stays until the
    /// next look.
    pub(crate) async fn sweep(&self) -> Result<(), EngineError> {
        for sandbox in self.left_over().await? {
            if self.observer().of_sandbox(&sandbox).is_some() {
                continue;
            }
            let Some(place) = self.inner.lanes.enter_idle(&sandbox) else { continue };
            let _turn = place.turn().await;
            // A create that ended in between has made a container.
            let name = labels::container_name(&self.inner.settings.wolf, &sandbox);
            if self.engine().inspect(&name).await?.is_some() {
                continue;
            }
            match self.clear_whatever(&sandbox).await {
                Ok(()) => tracing::info!(%sandbox, "removed what a sandbox had left"),
                Err(fault) => {
                    let source = fault.source.as_deref().map(tracing::field::display);
                    tracing::warn!(%sandbox, %fault, source, "what a sandbox had left stays for now");
                }
            }
        }
        Ok(())
    }

    /// Every sandbox that has something here beside a container.
    async fn left_over(&self) -> Result<BTreeSet<SandboxId>, EngineError> {
        let inner = &self.inner;
        let (engine, wolf) = (&inner.engine, &inner.settings.wolf);
        let of = |found: Vec<Labelled>, label: &'static str| {
            found
                .into_iter()
                .filter_map(move |found| SandboxId::parse(found.labels.get(label)?).ok())
        };
        let mut found = BTreeSet::new();
        for (at, sandbox) in
            [(labels::WOLF, labels::SANDBOX), (labels::SIBLING_WOLF, labels::SIBLING_OF)]
        {
            found.extend(of(engine.networks(at, wolf.as_str()).await?, sandbox));
            found.extend(of(engine.volumes(at, wolf.as_str()).await?, sandbox));
        }
        let siblings = engine.siblings(labels::SIBLING_WOLF, Some(wolf.as_str())).await?;
        found.extend(
            siblings.iter().filter_map(|sibling| {
                SandboxId::parse(sibling.labels.get(labels::SIBLING_OF)?).ok()
            }),
        );
        found.extend(inner.bridges.with_rules().await);
        let stage = inner.settings.stage.clone();
        match blocking(move || stage.list()).await {
            Ok(staged) => found.extend(staged),
            Err(error) => tracing::warn!(%error, "the mounts of sandboxes cannot be listed"),
        }
        Ok(found)
    }
}

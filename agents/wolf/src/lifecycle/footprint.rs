//! How much there is of a wolf's sandboxes on its host, to see that nothing is
//! left of those that are gone.

use std::path::Path;

use super::{Lifecycle, blocking};
use crate::engine::EngineError;
use crate::sandbox::{directory, labels};

/// Numbers of things on a host that are a wolf's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Containers of sandboxes.
    pub containers: usize,
    /// Containers that sandboxes started beside themselves.
    pub siblings: usize,
    /// Networks, the shared one included.
    pub networks: usize,
    /// Volumes.
    pub volumes: usize,
    /// Rules of the host's firewall; absent where they cannot be listed.
    pub rules: Option<usize>,
    /// Mounts below the data directory.
    pub mounts: usize,
    /// Directories of sandboxes.
    pub directories: usize,
}

impl Lifecycle {
    /// Counts what is there now.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn footprint(&self) -> Result<Footprint, EngineError> {
        let inner = &self.inner;
        let (engine, wolf) = (&inner.engine, inner.settings.wolf.as_str());
        let siblings = engine.siblings(labels::SIBLING_WOLF, Some(wolf)).await?.len();
        let networks = engine.networks(labels::WOLF, wolf).await?.len()
            + engine.networks(labels::SIBLING_WOLF, wolf).await?.len();
        let volumes = engine.volumes(labels::WOLF, wolf).await?.len()
            + engine.volumes(labels::SIBLING_WOLF, wolf).await?.len();
        let (root, stage) = (inner.settings.root.clone(), inner.settings.stage.clone());
        let files = blocking(move || {
            let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let points = mounted.lines().filter_map(|line| line.split(' ').nth(4));
            let below = |point: &&str| Path::new(point).starts_with(stage.root());
            Ok((points.filter(below).count(), directory::list(&root)?.len()))
        });
        let (mounts, directories) = files.await.unwrap_or_default();
        Ok(Footprint {
            containers: engine.list(labels::WOLF, wolf).await?.len(),
            siblings,
            networks,
            volumes,
            rules: inner.bridges.count_rules().await,
            mounts,
            directories,
        })
    }
}

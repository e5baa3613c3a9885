//! What the wolf of a data folder is called on the engine: every folder has
//! names of its own, so fleets never meet.

use super::super::config::DevConfig;

/// The label that leads from an object on the engine to its data folder.
pub(super) const DATA_LABEL: &str = "dev.wolfpack.dev-data";

/// The names.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// The container.
    pub(super) container: String,
    /// Its network.
    pub(super) network: String,
    /// The volume of the agent's state.
    pub(super) state_volume: String,
    /// The volume of its engine.
    pub(super) docker_volume: String,
    /// The data folder, for the label.
    pub(super) data: String,
}

impl Names {
    pub(super) fn of(config: &DevConfig) -> Self {
        let network = config.network();
        Self {
            container: format!("{network}-wolf"),
            state_volume: format!("{network}-state"),
            docker_volume: format!("{network}-docker"),
            network,
            data: config.data.display().to_string(),
        }
    }
}

//! What others are told when the fleet is ready.

use std::path::PathBuf;

use serde::Serialize;
use wolfpack_registry::ca::write_private;
use wolfpack_runtime::BoxError;

use super::config::DevConfig;
use super::services::Fleet;
use super::wolf::Wolf;
use crate::context::Context;

/// The facts of a fleet that is ready.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ready {
    /// The gateway without TLS, on loopback.
    pub(super) server: String,
    /// The gateway with TLS.
    pub(super) server_tls: String,
    /// Where agents attach, host:port.
    pub(super) agents: String,
    /// The first key.
    pub(super) api_key: String,
    /// The CA's certificate.
    pub(super) ca: PathBuf,
    /// The wolf on this machine.
    pub(super) wolf: String,
    /// What it runs in, for people.
    pub(super) wolf_runs: String,
    /// Its container, when it is one.
    pub(super) wolf_container: Option<String>,
    /// The network of its container, or with the machine's own engine of its
    /// sandboxes.
    pub(super) network: String,
    /// The folder of the state.
    pub(super) data: PathBuf,
}

impl Ready {
    pub(super) fn new(config: &DevConfig, fleet: &Fleet, wolf: &Wolf) -> Self {
        Self {
            server: format!("http://{}", fleet.http),
            server_tls: format!("https://localhost:{}", fleet.tls.port()),
            agents: fleet.agents.to_string(),
            api_key: fleet.api_key.clone(),
            ca: fleet.root.clone(),
            wolf: wolf.name.clone(),
            wolf_runs: wolf.runs.clone(),
            wolf_container: wolf.container.clone(),
            network: config.network(),
            data: config.data.clone(),
        }
    }

    /// Writes the ready file and, for a person, the context of the command line.
    pub(super) fn save(&self, config: &DevConfig) -> Result<(), BoxError> {
        if !config.arguments.ephemeral {
            let context = Context {
                server: self.server.clone(),
                api_key: Some(self.api_key.clone().into()),
                ca: Some(self.ca.clone()),
            };
            context.save()?;
        }
        if let Some(file) = &config.arguments.ready_file {
            write_private(file, &serde_json::to_vec_pretty(self)?)?;
        }
        Ok(())
    }
}

/// Takes the ready file away: the fleet is not ready any more.
pub(super) fn forget(config: &DevConfig) {
    if let Some(file) = &config.arguments.ready_file
        && let Err(error) = std::fs::remove_file(file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %file.display(), "cannot remove the ready file");
    }
}

//! The way to a sandbox's agent through this wolf, for when the sandbox's own
//! tunnel is down: target `sandbox-agent:{id}`.

use std::path::PathBuf;

use async_trait::async_trait;
use wolfpack_tunnel::{TargetDialer, TargetStream, TunnelPeer};
use wolfpack_types::{Fault, Reason, SandboxId, Target};

use super::MANAGER;
use crate::engine::ContainerState;
use crate::lifecycle::Observer;
use crate::sandbox::agent_socket;

/// Connects to the sockets of sandboxes that run here.
pub(crate) struct AgentDialer {
    pub(crate) observer: Observer,
    pub(crate) root: PathBuf,
}

#[async_trait]
impl TargetDialer for AgentDialer {
    async fn dial(&self, target: &Target, peer: &TunnelPeer) -> Result<TargetStream, Fault> {
        if peer.caller.strip_prefix("services/") != Some(MANAGER) {
            return Err(Fault::new(
                Reason::TargetForbidden,
                "only the sandbox-manager reaches sandboxes through their wolf",
            ));
        }
        let sandbox = SandboxId::parse(target.argument().unwrap_or_default())?;
        let unreachable = |words: &str| {
            Fault::new(
                Reason::TargetUnreachable,
                format!("the sandbox's agent is not reachable: {words}"),
            )
            .about(sandbox.name())
        };
        let seen = self.observer.of_sandbox(&sandbox);
        if !seen.is_some_and(|seen| seen.container.state == ContainerState::Running) {
            return Err(unreachable("the sandbox does not run on this wolf"));
        }
        let socket = agent_socket::connect(&self.root, &sandbox).await;
        let socket = socket.map_err(|error| {
            unreachable("its socket does not answer yet; try again").caused_by(error)
        })?;
        Ok(socket.into())
    }
}

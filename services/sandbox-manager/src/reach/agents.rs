//! Open connections to agents.

use std::time::Duration;

use moka::sync::Cache;
use tokio_util::sync::CancellationToken;
use wolfpack_proto::agent::v1::container_service_client::ContainerServiceClient;
use wolfpack_proto::agent::v1::sandbox_agent_service_client::SandboxAgentServiceClient;
use wolfpack_rpc::client::RpcChannel;
use wolfpack_tunnel::Dialer;
use wolfpack_types::{Endpoint, Target};

use crate::config::ReachConfig;
use crate::reach::cancel::Cancelling;
use crate::reach::{Path, Route};

/// A client of the agent inside a sandbox.
pub(crate) type Agent = SandboxAgentServiceClient<RpcChannel>;

/// One whose calls last until a token is cancelled.
pub(crate) type LastingAgent = SandboxAgentServiceClient<Cancelling>;

/// Channels by boot and tunnel. They connect when they are first used.
#[derive(Clone)]
pub(super) struct Agents {
    dialer: Dialer,
    channels: Cache<(Route, Path), RpcChannel>,
    dial: Duration,
    max_message: usize,
}

impl Agents {
    pub(super) fn new(dialer: Dialer, config: &ReachConfig) -> Self {
        Self {
            dialer,
            channels: Cache::builder()
                .max_capacity(config.channels)
                .time_to_idle(config.idle)
                .build(),
            dial: config.probe,
            max_message: config.max_message,
        }
    }

    /// The agent of a boot over a tunnel; its calls have a deadline.
    pub(super) fn over(&self, route: &Route, path: Path, deadline: Duration) -> Agent {
        let channel = self.channel(route, path).with_deadline(deadline);
        SandboxAgentServiceClient::new(channel).max_decoding_message_size(self.max_message)
    }

    /// The containers on the engine of a boot's sandbox.
    pub(super) fn containers(
        &self,
        route: &Route,
        path: Path,
        deadline: Duration,
    ) -> ContainerServiceClient<RpcChannel> {
        ContainerServiceClient::new(self.channel(route, path).with_deadline(deadline))
    }

    /// The same for calls that last until the token is cancelled.
    pub(super) fn lasting(
        &self,
        route: &Route,
        path: Path,
        token: CancellationToken,
    ) -> LastingAgent {
        let channel = self.channel(route, path).without_deadline();
        SandboxAgentServiceClient::new(Cancelling::new(channel, token))
            .max_decoding_message_size(self.max_message)
    }

    fn channel(&self, route: &Route, path: Path) -> RpcChannel {
        self.channels.get_with((route.clone(), path), || {
            // Ids are made of characters that targets allow.
            let (endpoint, target) = route.dial(path).unwrap_or_else(|_| nowhere(route));
            self.dialer.channel_within(endpoint, target, self.dial)
        })
    }

    pub(super) fn forget(&self, route: &Route, path: Path) {
        self.channels.invalidate(&(route.clone(), path));
    }
}

/// The family of the wolf's targets without a sandbox: no agent offers that.
fn nowhere(route: &Route) -> (Endpoint, Target) {
    (Endpoint::Wolf(route.wolf.clone()), Target::sandbox_agent(&route.sandbox))
}

//! Open connections to agents.

use std::time::Duration;

use moka::sync::Cache;
use wolfpack_proto::agent::v1::sandbox_agent_service_client::SandboxAgentServiceClient;
use wolfpack_rpc::client::RpcChannel;
use wolfpack_tunnel::Dialer;
use wolfpack_types::{Endpoint, Target};

use crate::config::ReachConfig;
use crate::reach::{Path, Route};

/// A client of the agent inside a sandbox.
pub(crate) type Agent = SandboxAgentServiceClient<RpcChannel>;

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

    /// The agent of a boot over a tunnel, with a default deadline or none.
    pub(super) fn over(&self, route: &Route, path: Path, deadline: Option<Duration>) -> Agent {
        let channel = self.channels.get_with((route.clone(), path), || {
            // Ids are made of characters that targets allow.
            let (endpoint, target) = route.dial(path).unwrap_or_else(|_| nowhere(route));
            self.dialer.channel_within(endpoint, target, self.dial)
        });
        let channel = match deadline {
            Some(deadline) => channel.with_deadline(deadline),
            None => channel.without_deadline(),
        };
        SandboxAgentServiceClient::new(channel)
            .max_decoding_message_size(self.max_message)
            .max_encoding_message_size(self.max_message)
    }

    pub(super) fn forget(&self, route: &Route, path: Path) {
        self.channels.invalidate(&(route.clone(), path));
    }
}

/// The family of the wolf's targets without a sandbox: no agent offers that.
fn nowhere(route: &Route) -> (Endpoint, Target) {
    (Endpoint::Wolf(route.wolf.clone()), Target::sandbox_agent(&route.sandbox))
}

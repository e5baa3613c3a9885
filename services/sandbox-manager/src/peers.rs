//! Channels to the services and wolves this one calls.

use std::time::Duration;

use moka::sync::Cache;
use tokio_util::sync::CancellationToken;
use wolfpack_proto::agent::v1::container_service_client::ContainerServiceClient;
use wolfpack_proto::agent::v1::wolf_doctor_service_client::WolfDoctorServiceClient;
use wolfpack_proto::agent::v1::wolf_image_service_client::WolfImageServiceClient;
use wolfpack_proto::agent::v1::wolf_runtime_service_client::WolfRuntimeServiceClient;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::scheduler::v1::scheduler_service_client::SchedulerServiceClient;
use wolfpack_proto::tunnel::v1::tunnel_service_client::TunnelServiceClient;
use wolfpack_rpc::client::RpcChannel;
use wolfpack_rpc::tls::ClientTls;
use wolfpack_runtime::BoxError;
use wolfpack_tunnel::Dialer;
use wolfpack_types::{Endpoint, ParseIdError, Target, WolfId};

use crate::config::Config;
use crate::reach::Cancelling;

/// Wolves whose channel is kept at a time; more are dialed again when needed.
const WOLVES_KEPT: u64 = 10_000;
/// How long the channel of a wolf that is not called is kept.
const WOLF_IDLE: Duration = Duration::from_secs(300);

/// Channels to everyone this service calls; cheap to clone. They connect when
/// they are first used and again when they broke.
#[derive(Clone)]
pub(crate) struct Peers {
    registry: RpcChannel,
    scheduler: RpcChannel,
    broker: RpcChannel,
    dialer: Dialer,
    runtimes: Cache<WolfId, RpcChannel>,
    runtime_target: Target,
    call: Duration,
}

impl Peers {
    pub(crate) fn new(config: &Config) -> Result<Self, BoxError> {
        let tls = config.tls.as_ref().map(ClientTls::load).transpose()?;
        let channel = |peer, service| RpcChannel::to_service(peer, service, tls.as_ref());
        let broker = channel(&config.tunnel_broker, "tunnel-broker")?;
        Ok(Self {
            registry: channel(&config.registry, "registry")?,
            scheduler: channel(&config.scheduler, "scheduler")?,
            dialer: Dialer::new(broker.clone()),
            broker,
            runtimes: Cache::builder().max_capacity(WOLVES_KEPT).time_to_idle(WOLF_IDLE).build(),
            runtime_target: runtime_target()?,
            call: config.reconcile.call,
        })
    }

    /// The registry, for the authority of the server.
    pub(crate) fn registry(&self) -> &RpcChannel {
        &self.registry
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub(crate) fn identity(&self) -> IdentityServiceClient<RpcChannel> {
        IdentityServiceClient::new(self.registry.with_deadline(self.call))
    }

    pub(crate) fn wolves(&self) -> WolfServiceClient<RpcChannel> {
        WolfServiceClient::new(self.registry.with_deadline(self.call))
    }

    /// For a watch, which has no deadline.
    pub(crate) fn wolf_watch(&self) -> WolfServiceClient<RpcChannel> {
        WolfServiceClient::new(self.registry.without_deadline())
    }

    pub(crate) fn scheduler(&self) -> SchedulerServiceClient<RpcChannel> {
        SchedulerServiceClient::new(self.scheduler.with_deadline(self.call))
    }

    /// For a watch, which has no deadline.
    pub(crate) fn tunnel_watch(&self) -> TunnelServiceClient<RpcChannel> {
        TunnelServiceClient::new(self.broker.without_deadline())
    }

    /// The agent of a wolf, through its tunnel.
    pub(crate) fn runtime(&self, wolf: &WolfId) -> WolfRuntimeServiceClient<RpcChannel> {
        WolfRuntimeServiceClient::new(self.runtime_channel(wolf).with_deadline(self.call))
    }

    /// For streams that last: the caller bounds them.
    pub(crate) fn runtime_stream(&self, wolf: &WolfId) -> WolfRuntimeServiceClient<RpcChannel> {
        WolfRuntimeServiceClient::new(self.runtime_channel(wolf).without_deadline())
    }

    /// The images of a wolf.
    pub(crate) fn images(
        &self,
        wolf: &WolfId,
        deadline: Duration,
    ) -> WolfImageServiceClient<RpcChannel> {
        WolfImageServiceClient::new(self.runtime_channel(wolf).with_deadline(deadline))
    }

    /// The same for a call that lasts until the token is cancelled.
    pub(crate) fn images_lasting(
        &self,
        wolf: &WolfId,
        token: CancellationToken,
    ) -> WolfImageServiceClient<Cancelling> {
        let channel = self.runtime_channel(wolf).without_deadline();
        WolfImageServiceClient::new(Cancelling::new(channel, token))
    }

    /// The doctor of a wolf; the caller bounds streams.
    pub(crate) fn doctor(
        &self,
        wolf: &WolfId,
        deadline: Duration,
    ) -> WolfDoctorServiceClient<RpcChannel> {
        WolfDoctorServiceClient::new(self.runtime_channel(wolf).with_deadline(deadline))
    }

    /// The containers on a wolf's own engine.
    pub(crate) fn siblings(
        &self,
        wolf: &WolfId,
        deadline: Duration,
    ) -> ContainerServiceClient<RpcChannel> {
        ContainerServiceClient::new(self.runtime_channel(wolf).with_deadline(deadline))
    }

    fn runtime_channel(&self, wolf: &WolfId) -> RpcChannel {
        self.runtimes.get_with(wolf.clone(), || {
            self.dialer.channel(Endpoint::Wolf(wolf.clone()), self.runtime_target.clone())
        })
    }
}

fn runtime_target() -> Result<Target, ParseIdError> {
    Target::parse(Target::RUNTIME)
}

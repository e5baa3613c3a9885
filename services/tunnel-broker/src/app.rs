//! The broker put together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wolfpack_proto::tunnel::v1::exposure_service_server::ExposureServiceServer;
use wolfpack_proto::tunnel::v1::tunnel_service_server::TunnelServiceServer;
use wolfpack_rpc::server::{RateLimit, admin};
use wolfpack_rpc::{
    Authority, BoundListener, ClientAuth, ClientTls, Forward, ListenConfig, Profile,
    RemoteAuthority, RpcChannel, Server,
};
use wolfpack_runtime::{BoxError, Context};
use wolfpack_tunnel::grpc::{ATTACH_PATH, CARRY_PATH, DIAL_PATH};

use crate::config::Config;
use crate::data_plane::DataPlane;
use crate::exposure::Exposures;
use crate::files;
use crate::follow::{follow_revocations, follow_wolves};
use crate::metrics::Metrics;
use crate::policy::{HEARTBEAT, POLICY, REGISTER_WOLF, RENEW_CERTIFICATE};
use crate::service::{AttachMethod, CarryMethod, DialMethod, ExposureRpcs, Raw, Tunnels};
use crate::state::Broker;

/// How much longer than our own drain the servers wait, so that streams end
/// with our reason and not with theirs.
const AFTER_DRAIN: Duration = Duration::from_secs(2);

/// What an agent may ask for: each connection is a call or two.
const AGENT_RATE: RateLimit = RateLimit { per_second: 20_000, burst: 40_000 };

/// Where the broker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For services.
    pub internal: SocketAddr,
    /// For agents.
    pub agents: SocketAddr,
    /// For scrapers.
    pub metrics: Option<SocketAddr>,
}

/// A broker that is bound and not yet running.
pub struct App {
    config: Config,
    context: Context,
    broker: Arc<Broker>,
    metrics: Arc<Metrics>,
    exposures: Arc<Exposures>,
    registry: RpcChannel,
    authority: Arc<dyn Authority>,
    internal: BoundListener,
    agents: BoundListener,
    admin: Option<admin::Admin>,
}

impl App {
    /// Binds the listeners and prepares the channel to the registry, which
    /// connects at the first call.
    ///
    /// # Errors
    /// When an address or the TLS files are not to be had.
    pub async fn build(config: Config, context: Context) -> Result<Self, BoxError> {
        let client = config.tls.as_ref().map(ClientTls::load).transpose()?;
        let registry = RpcChannel::to_service(&config.registry, "registry", client.as_ref())?;
        let authority = RemoteAuthority::new(registry.clone(), &context);
        Self::with_authority(config, context, registry, authority).await
    }

    /// As [`App::build`], with an authority and a channel of one's own, for
    /// those who have no registry of their own process.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn with_authority(
        config: Config,
        context: Context,
        registry: RpcChannel,
        authority: Arc<dyn Authority>,
    ) -> Result<Self, BoxError> {
        let bind = |address, client_auth| ListenConfig {
            address,
            tls: config.tls.clone(),
            client_auth: if config.tls.is_some() { client_auth } else { ClientAuth::Off },
        };
        // Users' keys come through the gateway, whose certificate it is.
        let internal = bind(config.listen, ClientAuth::Required).bind().await?;
        let agents = bind(config.agents, ClientAuth::Optional).bind().await?;
        let admin = match config.metrics {
            Some(address) => Some(admin::Admin::bind(address).await?),
            None => None,
        };
        let broker = Arc::new(Broker::new(config.limits.clone()));
        let metrics = Arc::new(Metrics::new(&context.telemetry, &broker));
        let exposures = Arc::new(Exposures::new(
            config.exposures.on_request.clone(),
            broker.clone(),
            metrics.clone(),
            context.telemetry.dispatch(),
            &context.supervisor.token(),
        ));
        metrics.watch_exposures(&context.telemetry, &exposures);
        files::say_limit();
        Ok(Self {
            config,
            context,
            broker,
            metrics,
            exposures,
            registry,
            authority,
            internal,
            agents,
            admin,
        })
    }

    /// The bound sockets.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses {
            internal: self.internal.local_addr(),
            agents: self.agents.local_addr(),
            metrics: self.admin.as_ref().map(admin::Admin::local_addr),
        }
    }

    /// The state, for tests and for a gateway of the same process.
    #[must_use]
    pub fn broker(&self) -> Arc<Broker> {
        self.broker.clone()
    }

    /// The exposures, for whoever opens them in the same process.
    #[must_use]
    pub fn exposures(&self) -> Arc<Exposures> {
        self.exposures.clone()
    }

    /// Serves until the supervisor stops, then drains: connections may finish
    /// until the configured deadline.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn run(self) -> Result<(), BoxError> {
        let Self {
            config,
            context,
            broker,
            metrics,
            exposures,
            registry,
            authority,
            internal,
            agents,
            admin,
        } = self;
        let plane = DataPlane::new(config.data_threads)?;
        exposures.set_plane(plane.handles());
        let drain = config.drain;
        let patient = |profile: Profile| Profile {
            stream_drain: drain + AFTER_DRAIN,
            drain: drain + 2 * AFTER_DRAIN,
            budget: Some(broker.budget.clone()),
            ..profile
        };
        let supervisor = context.supervisor.clone();
        // Once no connection is left (or their time is over), what still streams
        // are watches and heartbeats: they need not be waited for.
        let drained = CancellationToken::new();
        let forward = Forward::to(&registry).on_behalf_of_wolves();
        let serve_internal = |listener| {
            let dial = Raw::new(DialMethod::new(broker.clone(), metrics.clone()));
            Server::builder(&context, POLICY, authority.clone())
                .descriptor_set(wolfpack_proto::DESCRIPTOR_SET)
                .add_raw(DIAL_PATH, dial)
                .announce("wolfpack.tunnel.v1.DialService")
                .add_service(TunnelServiceServer::new(Tunnels::new(broker.clone())))
                .add_service(ExposureServiceServer::new(ExposureRpcs::new(
                    broker.clone(),
                    exposures.clone(),
                    authority.clone(),
                    supervisor.clone(),
                )))
                .streams_end_with(drained.clone())
                .listen(listener, patient(Profile::internal()))
                .build()
        };
        let serve_agents = |listener| {
            let attach = Raw::new(AttachMethod::new(broker.clone(), supervisor.clone()));
            Server::builder(&context, POLICY, authority.clone())
                .descriptor_set(wolfpack_proto::DESCRIPTOR_SET)
                .add_raw(ATTACH_PATH, attach)
                .add_raw(CARRY_PATH, Raw::new(CarryMethod::new(broker.clone())))
                .announce("wolfpack.tunnel.v1.AgentTunnelService")
                .add_raw(REGISTER_WOLF, forward.clone())
                .add_raw(HEARTBEAT, forward.clone())
                .add_raw(RENEW_CERTIFICATE, forward.clone())
                .streams_end_with(drained.clone())
                .listen(
                    listener,
                    patient(Profile { rate_limit: Some(AGENT_RATE), ..Profile::agent() }),
                )
                .build()
        };
        let mut shares = Vec::new();
        for _ in 1..config.data_threads {
            let share = (internal.try_clone()?, agents.try_clone()?);
            shares.push(vec![serve_internal(share.0), serve_agents(share.1)]);
        }
        let (internal, agents) = (serve_internal(internal), serve_agents(agents));
        let health = internal.health();
        shares.push(vec![internal, agents]);

        let (channel, state, stop) = (registry.clone(), broker.clone(), supervisor.token());
        supervisor.spawn_restarting("tunnel_revocations", move || {
            until(stop.clone(), follow_revocations(channel.clone(), state.clone()))
        });
        let (channel, state, stop) = (registry, broker.clone(), supervisor.token());
        supervisor.spawn_restarting("tunnel_wolves", move || {
            until(stop.clone(), follow_wolves(channel.clone(), state.clone()))
        });
        if let Some(admin) = admin {
            let context = context.clone();
            supervisor.spawn_essential("tunnel_admin", async move {
                admin.serve(&context, health).await
            });
        }

        for fixed in &config.exposures.fixed {
            exposures.open(fixed.spec()?).map_err(|error| {
                format!("exposures.fixed: cannot listen on {}: {error}", fixed.listen)
            })?;
        }
        let token = supervisor.token();
        let draining = async {
            token.cancelled().await;
            exposures.close();
            broker.drain(drain, &config.drain_alternatives).await;
            drained.cancel();
            Ok(())
        };
        let served = plane.run(shares, &context.telemetry, &drained);
        tokio::select! {
            ended = async { tokio::try_join!(served, draining) } => ended.map(drop),
            // Until the last session has ended: a drain takes its time.
            () = broker.keep_swept() => Ok(()),
        }
    }
}

/// Runs `work` until it ends or `stop` is cancelled.
async fn until(
    stop: CancellationToken,
    work: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), BoxError> {
    stop.run_until_cancelled(work).await.unwrap_or(Ok(()))
}

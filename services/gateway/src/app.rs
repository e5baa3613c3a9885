//! The parts, put together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use wolfpack_rpc::client::RpcChannel;
use wolfpack_rpc::forward::Forward;
use wolfpack_rpc::server::{BoundListener, ListenConfig, Profile, Server};
use wolfpack_rpc::tls::{ClientAuth, ClientTls};
use wolfpack_runtime::{BoxError, Context, Telemetry};
use wolfpack_tunnel::Dialer;

use crate::config::Config;
use crate::health::HealthBoard;
use crate::http::{self, Parts};
use crate::ingress::{self, Ingress};
use crate::proxy::{PassOn, Proxy};
use crate::routes::{PUBLIC, Upstream, policy, public_descriptor_set};
use crate::upstream::Channels;

/// The sockets that were bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The public listener, with TLS.
    pub listen: SocketAddr,
    /// The one without.
    pub plaintext: Option<SocketAddr>,
    /// `/metrics` and `/healthz` for operators.
    pub metrics: Option<SocketAddr>,
}

/// A gateway that is ready to run.
pub struct App {
    context: Context,
    addresses: Addresses,
    servers: Vec<Server>,
    health: HealthBoard,
    followed: Vec<(Upstream, RpcChannel)>,
    health_interval: Duration,
}

impl App {
    /// Binds and makes the parts. Services behind are connected to as calls
    /// need them.
    ///
    /// # Errors
    /// When an address or a file cannot be used, or plaintext would leave this
    /// machine unasked.
    pub async fn build(config: Config, context: Context) -> Result<Self, BoxError> {
        Self::build_with(config, context, Vec::new()).await
    }

    /// As [`App::build`]; `/metrics` also shows the metrics of these other
    /// services of the process.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn build_with(
        config: Config,
        context: Context,
        extra: Vec<Telemetry>,
    ) -> Result<Self, BoxError> {
        if let Some(fault) = config.plaintext_fault() {
            return Err(fault.into());
        }
        let public_tls = config.public_tls().cloned().ok_or(
            "the public listener needs tls; write tls.certificate_file, tls.key_file and tls.roots_file",
        )?;
        let public = ListenConfig {
            address: config.listen,
            tls: Some(public_tls),
            client_auth: ClientAuth::Off,
        };
        let public = public.bind().await?;
        let plaintext = bind_plain(config.plaintext).await?;
        let admin = bind_plain(config.metrics).await?;
        let addresses = Addresses {
            listen: public.local_addr(),
            plaintext: plaintext.as_ref().map(BoundListener::local_addr),
            metrics: admin.as_ref().map(BoundListener::local_addr),
        };

        let tls = config.tls.as_ref().map(ClientTls::load).transpose()?;
        let channels = Channels::new(&config, tls.as_ref())?;
        let health = HealthBoard::new().await;
        let parts = Parts {
            health: health.clone(),
            sandbox_manager: channels
                .to(Upstream::SandboxManager)
                .with_deadline(config.screenshot_deadline),
            telemetry: std::iter::once(context.telemetry.clone()).chain(extra).collect(),
        };
        let dialer = Dialer::new(channels.to(Upstream::TunnelBroker).clone());
        let ingress = Ingress::new(config.ingress.clone(), dialer, &context);
        let rate = ingress::address_rate(&config.ingress, &context);
        let serve = |listener: BoundListener, router| {
            let profile = profile(&config, &listener);
            let rate = by_address(&config, &listener).then(|| Arc::clone(&rate));
            server(&context, &channels, &health, router)
                .ingress(Arc::new(ingress.limited(rate)))
                .listen(listener, profile)
                .build()
        };
        let mut servers = vec![serve(public, http::public(parts.clone()))];
        if let Some(listener) = plaintext {
            let router = if listener.local_addr().ip().is_loopback() {
                http::local(parts.clone())
            } else {
                http::public(parts.clone())
            };
            servers.push(serve(listener, router));
        }
        if let Some(listener) = admin {
            let profile = Profile {
                max_connections: 64,
                rate_limit: None,
                drain: Duration::from_secs(2),
                ..Profile::public()
            };
            servers.push(
                Server::builder(&context, &[], Arc::new(PassOn))
                    .fallback(http::admin(parts))
                    .listen(listener, profile)
                    .build(),
            );
        }
        let followed = Upstream::ALL
            .into_iter()
            .map(|upstream| (upstream, channels.to(upstream).clone()))
            .collect();
        let health_interval = config.health_interval;
        Ok(Self { context, addresses, servers, health, followed, health_interval })
    }

    /// The sockets that were bound.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Whether the services behind serve; shared with the running gateway.
    #[must_use]
    pub fn health(&self) -> HealthBoard {
        self.health.clone()
    }

    /// Serves until the supervisor's token is cancelled, then drains.
    ///
    /// # Errors
    /// When a socket fails.
    pub async fn run(self) -> Result<(), BoxError> {
        let supervisor = &self.context.supervisor;
        for (upstream, channel) in self.followed {
            let follow = self.health.clone().follow(
                upstream,
                channel,
                self.health_interval,
                supervisor.token(),
            );
            supervisor.spawn("gateway.health", follow);
        }
        let (health, stop) = (self.health.clone(), supervisor.token());
        supervisor.spawn("gateway.drain", async move {
            stop.cancelled().await;
            health.drain().await;
        });
        futures::future::try_join_all(self.servers.into_iter().map(Server::serve)).await?;
        Ok(())
    }
}

async fn bind_plain(address: Option<SocketAddr>) -> Result<Option<BoundListener>, BoxError> {
    match address {
        Some(address) => Ok(Some(ListenConfig::plain(address).bind().await?)),
        None => Ok(None),
    }
}

/// Users come from many addresses, unless a balancer stands before them; who
/// comes from this machine comes through its own relays and tunnels.
fn by_address(config: &Config, listener: &BoundListener) -> bool {
    config.connections_per_address != 0 && !listener.local_addr().ip().is_loopback()
}

fn profile(config: &Config, listener: &BoundListener) -> Profile {
    let public = Profile { drain: config.drain, ..Profile::public() };
    if !by_address(config, listener) {
        return Profile { connections_per_address: None, strangers_per_address: None, ..public };
    }
    Profile { connections_per_address: Some(config.connections_per_address), ..public }
}

/// gRPC to the services behind; everything else to the router.
fn server(
    context: &Context,
    channels: &Channels,
    health: &HealthBoard,
    router: Router,
) -> wolfpack_rpc::server::ServerBuilder {
    // The kit's own health knows this server only; ours knows those behind it,
    // and stands before it.
    let health = HealthServer::new(HealthService::from_health_reporter(health.reporter()));
    let mut builder = Server::builder(context, policy(), Arc::new(PassOn))
        .descriptor_set(public_descriptor_set())
        .add_raw("/grpc.health.v1.Health/", health)
        .fallback(router);
    for public in PUBLIC {
        let forward = Forward::to(channels.to(public.upstream));
        builder = builder.announce(public.name).add_raw(public.prefix, Proxy::new(forward));
    }
    builder
}

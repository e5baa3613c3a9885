//! The registry as a whole: built from a configuration, then run.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::SecretString;
use wolfpack_proto::DESCRIPTOR_SET;
use wolfpack_proto::registry::v1::identity_service_server::IdentityServiceServer;
use wolfpack_proto::registry::v1::wolf_service_server::WolfServiceServer;
use wolfpack_rpc::auth::Authority;
use wolfpack_rpc::client::{PeerConfig, RpcChannel};
use wolfpack_rpc::server::admin::Admin;
use wolfpack_rpc::server::{BoundListener, HealthHandle, ListenConfig, Profile, Server};
use wolfpack_rpc::tls::{ClientAuth, ClientTls};
use wolfpack_runtime::{BoxError, Context};
use wolfpack_types::{Fault, ProjectId, UserId};

use crate::authority::LocalAuthority;
use crate::ca::CertificateAuthority;
use crate::config::Config;
use crate::domain::api_key::ApiKeySecret;
use crate::domain::health::Timing;
use crate::metrics::Metrics;
use crate::policy::POLICY;
use crate::sandbox_tokens::SandboxTokens;
use crate::service::{HeartbeatStreams, IdentityHandler, Registry, WolfHandler};
use crate::store::Database;
use crate::tunnel_watch::TunnelWatch;
use crate::watch::{Feed, FeedConfig, Revocations, Wolves, blind_after};
use crate::{ca, pepper_file, tasks};

/// The registry, bound to its sockets and its database.
pub struct App {
    config: Config,
    context: Context,
    registry: Arc<Registry>,
    listener: BoundListener,
    admin: Option<Admin>,
}

/// Where the registry listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// `/metrics` and `/healthz`.
    pub metrics: Option<SocketAddr>,
}

/// The first user of a new installation: a platform admin.
pub struct Bootstrap {
    /// The user.
    pub user: UserId,
    /// Its project.
    pub project: ProjectId,
    /// Its key, shown this once.
    pub api_key: SecretString,
}

impl App {
    /// Makes or reads CA and pepper, opens the database, binds the sockets and
    /// writes the first key where `bootstrap_key_file` says. Nothing is served
    /// yet; other services are reached only once it runs.
    ///
    /// # Errors
    /// When a file, the database or an address cannot be used.
    pub async fn build(config: Config, context: Context) -> Result<Self, BoxError> {
        let pepper = pepper_file::create_or_load(&config.pepper_file()).map_err(told)?;
        let ca = CertificateAuthority::create_or_load(&config.ca_dir())?
            .with_wolf_validity(config.wolf_certificate_life);
        let listener = listen(&config).bind().await?;
        let admin = match config.metrics {
            Some(address) => Some(Admin::bind(address).await?),
            None => None,
        };
        let database = Database::open(&config.database, pepper).await?;
        let registry = assemble(&config, &context, database, ca).await?;
        let app = Self { config, context, registry: Arc::new(registry), listener, admin };
        app.write_bootstrap_key().await?;
        Ok(app)
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses {
            grpc: self.listener.local_addr(),
            metrics: self.admin.as_ref().map(Admin::local_addr),
        }
    }

    /// Makes the first user, project and admin key when there is no user yet;
    /// `None` when there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn bootstrap(&self) -> Result<Option<Bootstrap>, Fault> {
        let key = ApiKeySecret::generate(&self.config.key_environment);
        let first = self.registry.database.create_first(&key).await?;
        Ok(first.map(|first| Bootstrap {
            user: first.user,
            project: first.project,
            api_key: key.reveal().into(),
        }))
    }

    /// Names the broker to watch, for a composition where it is built after
    /// the registry; replaces `tunnel_broker` of the configuration.
    pub fn set_tunnel_broker(&mut self, broker: PeerConfig) {
        self.config.tunnel_broker = Some(broker);
    }

    /// Sets what joining wolves are told as the broker's agent port, likewise.
    pub fn set_agent_endpoint(&self, endpoint: String) {
        self.registry.agent_endpoint.store(Arc::new(endpoint));
    }

    /// Serves until the context's supervisor is told to stop, then drains.
    ///
    /// # Errors
    /// When a listener fails or the drain was cut off.
    pub async fn run(self) -> Result<(), BoxError> {
        let authority: Arc<dyn Authority> = Arc::clone(&self.registry.authority) as _;
        let server = Server::builder(&self.context, POLICY, authority)
            .descriptor_set(DESCRIPTOR_SET)
            .add_service(WolfServiceServer::new(WolfHandler(Arc::clone(&self.registry))))
            .add_service(IdentityServiceServer::new(IdentityHandler(Arc::clone(&self.registry))))
            .listen(self.listener, Profile::internal())
            .build();
        let health = server.health();
        spawn_tasks(&self.config, &self.context, &self.registry, &health)?;
        if let Some(admin) = self.admin {
            let context = self.context.clone();
            self.context.supervisor.spawn_essential("registry.admin", async move {
                admin.serve(&context, health).await
            });
        }
        server.serve().await
    }

    /// The file is written before the key exists, so that a crash in between
    /// loses neither: the next start writes it anew.
    async fn write_bootstrap_key(&self) -> Result<(), BoxError> {
        let Some(path) = &self.config.bootstrap_key_file else { return Ok(()) };
        if self.registry.database.has_users().await? {
            return Ok(());
        }
        let key = ApiKeySecret::generate(&self.config.key_environment);
        ca::write_private(path, format!("{}\n", key.reveal()).as_bytes())?;
        match self.registry.database.create_first(&key).await? {
            Some(first) => tracing::info!(
                user = %first.user, project = %first.project, file = %path.display(),
                "the first admin's key was written"
            ),
            // Another replica was first, and has written its own file.
            None => std::fs::remove_file(path)?,
        }
        Ok(())
    }
}

fn listen(config: &Config) -> ListenConfig {
    // Not required: whoever joins has no certificate yet.
    let client_auth = if config.tls.is_some() { ClientAuth::Optional } else { ClientAuth::Off };
    ListenConfig { address: config.listen, tls: config.tls.clone(), client_auth }
}

async fn assemble(
    config: &Config,
    context: &Context,
    database: Database,
    ca: CertificateAuthority,
) -> Result<Registry, BoxError> {
    let bounds = FeedConfig {
        poll: config.watch.poll,
        queue: config.watch.queue,
        bookmark: config.watch.bookmark,
        blind: blind_after(config.watch.poll),
    };
    let wolves = Feed::open(Wolves(database.clone()), bounds).await?;
    let revocations = Feed::open(Revocations(database.clone()), bounds).await?;
    let tokens = SandboxTokens::open(
        database.clone(),
        Arc::clone(&revocations),
        config.sandbox_tokens.life,
        config.sandbox_tokens.signing_key_life,
    );
    let tokens = Arc::new(tokens.await?);
    let authority =
        LocalAuthority::new(database.clone(), Arc::clone(&tokens), Arc::clone(&revocations));
    let streams = HeartbeatStreams::default();
    let meter = context.telemetry.meter();
    let (open, wolf_watchers, other_watchers) =
        (streams.clone(), Arc::clone(&wolves), Arc::clone(&revocations));
    Metrics::observe_open(
        &meter,
        "registry_heartbeat_streams",
        "Heartbeat streams that are open.",
        move || open.len(),
    );
    Metrics::observe_open(&meter, "registry_wolf_watchers", "Watches of wolves.", move || {
        wolf_watchers.watchers()
    });
    Metrics::observe_open(
        &meter,
        "registry_revocation_watchers",
        "Watches of revocations.",
        move || other_watchers.watchers(),
    );
    Ok(Registry {
        database,
        ca,
        authority: Arc::new(authority),
        tokens,
        wolves,
        revocations,
        streams,
        metrics: Metrics::new(&meter),
        timing: Timing { interval: config.heartbeat.interval },
        key_environment: config.key_environment.clone(),
        agent_endpoint: ArcSwap::from_pointee(config.agent_endpoint.clone()),
    })
}

fn spawn_tasks(
    config: &Config,
    context: &Context,
    registry: &Arc<Registry>,
    health: &HealthHandle,
) -> Result<(), BoxError> {
    let supervisor = &context.supervisor;
    let token = supervisor.token();

    let (feed, stop) = (Arc::clone(&registry.wolves), token.clone());
    supervisor.spawn_restarting("registry.wolves", move || {
        let (feed, stop) = (Arc::clone(&feed), stop.clone());
        async move { feed.run(stop).await }
    });
    let (feed, stop) = (Arc::clone(&registry.revocations), token.clone());
    supervisor.spawn_restarting("registry.revocations", move || {
        let (feed, stop) = (Arc::clone(&feed), stop.clone());
        async move { feed.run(stop).await }
    });
    let (this, health, stop) = (Arc::clone(registry), health.clone(), token.clone());
    let sweep = config.heartbeat.sweep;
    supervisor.spawn_restarting("registry.health", move || {
        tasks::watch_health(Arc::clone(&this), health.clone(), sweep, stop.clone())
    });
    let (this, stop) = (Arc::clone(registry), token.clone());
    let unregistered = config.unregistered_wolf_life;
    supervisor.spawn_restarting("registry.housekeeping", move || {
        tasks::keep_house(Arc::clone(&this), unregistered, stop.clone())
    });
    let Some(peer) = &config.tunnel_broker else {
        tracing::warn!("no tunnel broker is configured: no wolf will be online");
        return Ok(());
    };
    let tls = config.tls.as_ref().map(ClientTls::load).transpose()?;
    let watch = TunnelWatch {
        broker: RpcChannel::to_service(peer, "tunnel-broker", tls.as_ref())?,
        database: registry.database.clone(),
        wolves: Arc::clone(&registry.wolves),
        timing: registry.timing,
        token,
    };
    supervisor.spawn_restarting("registry.tunnels", move || watch.clone().run());
    Ok(())
}

/// What went wrong before anyone could call, in the words of its cause.
fn told(fault: Fault) -> BoxError {
    match &fault.source {
        Some(source) => source.to_string().into(),
        None => fault.into(),
    }
}

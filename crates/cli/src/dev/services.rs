//! The five services, each built as in a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wolfpack_registry::ca::write_private;
use wolfpack_rpc::client::{PeerConfig, RpcChannel};
use wolfpack_rpc::tls::ClientTls;
use wolfpack_runtime::{BoxError, Context, HasTelemetry as _, Telemetry};
use wolfpack_store::DatabaseConfig;
use {
    wolfpack_gateway as gateway, wolfpack_registry as registry,
    wolfpack_sandbox_manager as sandbox_manager, wolfpack_scheduler as scheduler,
    wolfpack_tunnel_broker as tunnel_broker,
};

use super::certificates::{Certificates, ca_dir};
use super::config::DevConfig;
use super::parts::Parts;
use super::ports;

/// A heartbeat is cheap in one process, and a wolf that dies is noticed sooner.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Running connections get this long when the fleet stops.
const DRAIN: Duration = Duration::from_secs(5);

/// The services that run, and how to talk to them.
pub(super) struct Fleet {
    /// The gateway with TLS.
    pub(super) tls: SocketAddr,
    /// The gateway without.
    pub(super) http: SocketAddr,
    /// The broker's agent port.
    pub(super) agents: SocketAddr,
    /// The first key.
    pub(super) api_key: String,
    /// The CA's certificate.
    pub(super) root: PathBuf,
    /// The gateway, with the first key.
    pub(super) channel: RpcChannel,
}

/// Where each service listens for the others.
struct Internal {
    registry: SocketAddr,
    scheduler: SocketAddr,
    broker: SocketAddr,
    manager: SocketAddr,
}

impl Fleet {
    pub(super) async fn start(config: &DevConfig, parts: &mut Parts) -> Result<Self, BoxError> {
        let certificates = Certificates::open(config)?;
        let [registry, scheduler, broker, manager] = ports::free_loopback()?;
        let internal = Internal { registry, scheduler, broker, manager };
        let tls = ports::with_port(config.listen(config.arguments.tls, 8443))?;
        let http = ports::with_port(config.listen(config.arguments.http, 8080))?;
        let agents = ports::with_port(config.listen(config.arguments.agents, 8444))?;

        let mut telemetries = Vec::new();
        let api_key =
            start_registry(config, &certificates, &internal, agents, parts, &mut telemetries)
                .await?;
        start_broker(config, &certificates, &internal, agents, parts, &mut telemetries).await?;
        start_scheduler(config, &certificates, &internal, parts, &mut telemetries).await?;
        start_manager(config, &certificates, &internal, parts, &mut telemetries).await?;
        start_gateway(config, &certificates, &internal, (tls, http), parts, telemetries).await?;

        let root = certificates.root();
        let trust = ClientTls::roots_only(&std::fs::read(&root)?)?;
        let key = secrecy::SecretString::from(api_key.clone());
        let server = format!("https://{}", loopback(tls));
        let channel = RpcChannel::to_gateway(&server, Some(&trust), Some(key))?;
        Ok(Self { tls, http, agents, api_key, root, channel })
    }

    /// The gateway as this machine reaches it.
    pub(super) fn tls_local(&self) -> SocketAddr {
        loopback(self.tls)
    }

    /// The agent port as this machine reaches it.
    pub(super) fn agents_local(&self) -> SocketAddr {
        loopback(self.agents)
    }
}

/// An address that listens everywhere is reached at loopback from here.
fn loopback(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    }
}

fn peer(address: SocketAddr) -> PeerConfig {
    PeerConfig { address: format!("https://{address}") }
}

fn database(config: &DevConfig, name: &str) -> Result<DatabaseConfig, BoxError> {
    let folder = config.data.join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(DatabaseConfig::sqlite(&folder.join(format!("{name}.db"))))
}

/// A context under the service's own name; its telemetry is kept for `/metrics`.
fn context(
    config: &DevConfig,
    name: &'static str,
    kept: &mut Vec<Telemetry>,
) -> Result<Context, BoxError> {
    let context = Context::new(name, config.telemetry())?;
    kept.push(context.telemetry.clone());
    Ok(context)
}

async fn start_registry(
    config: &DevConfig,
    certificates: &Certificates,
    internal: &Internal,
    agents: SocketAddr,
    parts: &mut Parts,
    kept: &mut Vec<Telemetry>,
) -> Result<String, BoxError> {
    let data_dir = config.data.join("registry");
    let settings = registry::Config {
        listen: internal.registry,
        tls: Some(certificates.issue("registry")?),
        database: database(config, "registry")?,
        ca_dir: Some(ca_dir(config)),
        data_dir: data_dir.clone(),
        key_environment: "dev".to_owned(),
        agent_endpoint: format!(":{}", agents.port()),
        tunnel_broker: Some(peer(internal.broker)),
        heartbeat: registry::config::HeartbeatConfig { interval: HEARTBEAT, ..Default::default() },
        telemetry: config.telemetry().clone(),
        drain: DRAIN,
        ..registry::Config::default()
    };
    let context = context(config, "registry", kept)?;
    let app = registry::App::build(settings, context.clone()).await?;
    let key = first_key(&app, &data_dir.join("first.key")).await?;
    parts.run("registry", context, app.run());
    Ok(key)
}

/// The key of the first user: made once, then kept in a file for its owner alone.
async fn first_key(app: &registry::App, file: &Path) -> Result<String, BoxError> {
    use secrecy::ExposeSecret as _;
    if let Some(first) = app.bootstrap().await? {
        let key = first.api_key.expose_secret().to_owned();
        write_private(file, key.as_bytes())?;
        return Ok(key);
    }
    std::fs::read_to_string(file).map(|key| key.trim().to_owned()).map_err(|error| {
        format!(
            "the first key is not in {}: {error}; choose a fresh folder with --data",
            file.display()
        )
        .into()
    })
}

async fn start_broker(
    config: &DevConfig,
    certificates: &Certificates,
    internal: &Internal,
    agents: SocketAddr,
    parts: &mut Parts,
    kept: &mut Vec<Telemetry>,
) -> Result<(), BoxError> {
    let settings = tunnel_broker::Config {
        listen: internal.broker,
        agents,
        tls: Some(certificates.issue("tunnel-broker")?),
        registry: peer(internal.registry),
        telemetry: config.telemetry().clone(),
        drain: DRAIN,
        ..tunnel_broker::Config::default()
    };
    let context = context(config, "tunnel-broker", kept)?;
    let app = tunnel_broker::App::build(settings, context.clone()).await?;
    parts.run("tunnel-broker", context, app.run());
    Ok(())
}

async fn start_scheduler(
    config: &DevConfig,
    certificates: &Certificates,
    internal: &Internal,
    parts: &mut Parts,
    kept: &mut Vec<Telemetry>,
) -> Result<(), BoxError> {
    let settings = scheduler::Config {
        listen: internal.scheduler,
        tls: Some(certificates.issue("scheduler")?),
        registry: peer(internal.registry),
        database: database(config, "scheduler")?,
        telemetry: config.telemetry().clone(),
        drain: DRAIN,
        ..scheduler::Config::default()
    };
    let context = context(config, "scheduler", kept)?;
    let app = scheduler::App::build(settings, context.clone()).await?;
    parts.run("scheduler", context, app.run());
    Ok(())
}

async fn start_manager(
    config: &DevConfig,
    certificates: &Certificates,
    internal: &Internal,
    parts: &mut Parts,
    kept: &mut Vec<Telemetry>,
) -> Result<(), BoxError> {
    let settings = sandbox_manager::Config {
        listen: internal.manager,
        tls: Some(certificates.issue("sandbox-manager")?),
        registry: peer(internal.registry),
        scheduler: peer(internal.scheduler),
        tunnel_broker: peer(internal.broker),
        database: database(config, "sandbox-manager")?,
        telemetry: config.telemetry().clone(),
        drain: DRAIN,
        ..sandbox_manager::Config::default()
    };
    let context = context(config, "sandbox-manager", kept)?;
    let app = sandbox_manager::App::build(settings, context.clone()).await?;
    parts.run("sandbox-manager", context, app.run());
    Ok(())
}

async fn start_gateway(
    config: &DevConfig,
    certificates: &Certificates,
    internal: &Internal,
    (tls, http): (SocketAddr, SocketAddr),
    parts: &mut Parts,
    kept: Vec<Telemetry>,
) -> Result<(), BoxError> {
    let settings = gateway::Config {
        listen: tls,
        plaintext: Some(http),
        tls: Some(certificates.issue("gateway")?),
        registry: peer(internal.registry),
        scheduler: peer(internal.scheduler),
        tunnel_broker: peer(internal.broker),
        sandbox_manager: peer(internal.manager),
        telemetry: config.telemetry().clone(),
        drain: DRAIN,
        ..gateway::Config::default()
    };
    let context = Context::new("gateway", config.telemetry())?;
    let app = gateway::App::build_with(settings, context.clone(), kept).await?;
    parts.run("gateway", context, app.run());
    Ok(())
}

//! The five services, each built as in a process of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

use wolfpack_tunnel_broker::domain::exposure::ExposureRules;

use super::certificates::{Certificates, ca_dir};
use super::config::DevConfig;
use super::parts::Parts;

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

/// Its every subdomain is a port of a sandbox.
const INGRESS_DOMAIN: &str = "localhost";

/// A free port of this machine's own.
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Fleet {
    pub(super) async fn start(config: &DevConfig, parts: &mut Parts) -> Result<Self, BoxError> {
        let certificates = Certificates::open(config)?;
        let mut start = Start { config, certificates: &certificates, telemetries: Vec::new() };
        // The registry and the broker call each other: the registry is told where the broker is
        // once that is bound, and only then runs.
        let (mut registry, registry_context) = start.registry().await?;
        let registry_peer = peer(registry.addresses().grpc);
        let (broker, broker_context) = start.broker(&registry_peer).await?;
        let broker_peer = peer(broker.addresses().internal);
        let agents = broker.addresses().agents;
        registry.set_tunnel_broker(broker_peer.clone());
        registry.set_agent_endpoint(format!(":{}", agents.port()));
        let api_key = first_key(&registry, &config.data.join("registry").join("first.key")).await?;
        let (scheduler, scheduler_context) = start.scheduler(&registry_peer).await?;
        let scheduler_peer = peer(scheduler.addresses().listen);
        let (manager, manager_context) =
            start.manager(&registry_peer, &scheduler_peer, &broker_peer).await?;
        let peers = gateway::Config {
            registry: registry_peer,
            scheduler: scheduler_peer,
            tunnel_broker: broker_peer,
            sandbox_manager: peer(manager.addresses().grpc),
            ..gateway::Config::default()
        };
        let (gateway, gateway_context) = start.gateway(peers).await?;
        let addresses = gateway.addresses();
        let (tls, http) =
            (addresses.listen, addresses.plaintext.ok_or("the gateway has no plain listener")?);
        // Browsers find every name under localhost on this machine.
        manager.set_ingress_url(format!("http://*.{INGRESS_DOMAIN}:{}", http.port()));
        parts.run("registry", registry_context, registry.run());
        parts.run("tunnel-broker", broker_context, broker.run());
        parts.run("scheduler", scheduler_context, scheduler.run());
        parts.run("sandbox-manager", manager_context, manager.run());
        parts.run("gateway", gateway_context, gateway.run());

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

/// Builds the services one after the other.
struct Start<'a> {
    config: &'a DevConfig,
    certificates: &'a Certificates,
    /// Kept for the gateway's `/metrics`.
    telemetries: Vec<Telemetry>,
}

impl Start<'_> {
    /// A context under the service's own name.
    fn context(&mut self, name: &'static str) -> Result<Context, BoxError> {
        let context = Context::new(name, self.config.telemetry())?;
        self.telemetries.push(context.telemetry.clone());
        Ok(context)
    }

    async fn registry(&mut self) -> Result<(registry::App, Context), BoxError> {
        let settings = registry::Config {
            listen: FREE,
            tls: Some(self.certificates.issue("registry")?),
            database: database(self.config, "registry")?,
            ca_dir: Some(ca_dir(self.config)),
            data_dir: self.config.data.join("registry"),
            key_environment: "dev".to_owned(),
            heartbeat: registry::config::HeartbeatConfig {
                interval: HEARTBEAT,
                ..Default::default()
            },
            telemetry: self.config.telemetry().clone(),
            drain: DRAIN,
            ..registry::Config::default()
        };
        let context = self.context("registry")?;
        Ok((registry::App::build(settings, context.clone()).await?, context))
    }

    async fn broker(
        &mut self,
        registry: &PeerConfig,
    ) -> Result<(tunnel_broker::App, Context), BoxError> {
        let settings = tunnel_broker::Config {
            listen: FREE,
            agents: self.config.listen(self.config.arguments.agents, 8444),
            tls: Some(self.certificates.issue("tunnel-broker")?),
            registry: registry.clone(),
            telemetry: self.config.telemetry().clone(),
            // The manager's channels to agents are idle connections that never end by themselves.
            drain: Duration::from_secs(1),
            exposures: tunnel_broker::config::ExposureConfig {
                on_request: Some(ExposureRules::any_port_of(FREE.ip())),
                ..Default::default()
            },
            ..tunnel_broker::Config::default()
        };
        let context = self.context("tunnel-broker")?;
        Ok((tunnel_broker::App::build(settings, context.clone()).await?, context))
    }

    async fn scheduler(
        &mut self,
        registry: &PeerConfig,
    ) -> Result<(scheduler::App, Context), BoxError> {
        let settings = scheduler::Config {
            listen: FREE,
            tls: Some(self.certificates.issue("scheduler")?),
            registry: registry.clone(),
            database: database(self.config, "scheduler")?,
            telemetry: self.config.telemetry().clone(),
            drain: DRAIN,
            ..scheduler::Config::default()
        };
        let context = self.context("scheduler")?;
        Ok((scheduler::App::build(settings, context.clone()).await?, context))
    }

    async fn manager(
        &mut self,
        registry: &PeerConfig,
        scheduler: &PeerConfig,
        tunnel_broker: &PeerConfig,
    ) -> Result<(sandbox_manager::App, Context), BoxError> {
        let settings = sandbox_manager::Config {
            listen: FREE,
            tls: Some(self.certificates.issue("sandbox-manager")?),
            registry: registry.clone(),
            scheduler: scheduler.clone(),
            tunnel_broker: tunnel_broker.clone(),
            database: database(self.config, "sandbox-manager")?,
            telemetry: self.config.telemetry().clone(),
            drain: DRAIN,
            ..sandbox_manager::Config::default()
        };
        let context = self.context("sandbox-manager")?;
        Ok((sandbox_manager::App::build(settings, context.clone()).await?, context))
    }

    async fn gateway(
        &mut self,
        peers: gateway::Config,
    ) -> Result<(gateway::App, Context), BoxError> {
        let settings = gateway::Config {
            listen: self.config.listen(self.config.arguments.tls, 8443),
            plaintext: Some(self.config.listen(self.config.arguments.http, 8080)),
            tls: Some(self.certificates.issue("gateway")?),
            telemetry: self.config.telemetry().clone(),
            ingress: gateway::config::IngressConfig {
                domains: vec![INGRESS_DOMAIN.to_owned()],
                ..Default::default()
            },
            drain: DRAIN,
            ..peers
        };
        let context = Context::new("gateway", self.config.telemetry())?;
        let others = std::mem::take(&mut self.telemetries);
        Ok((gateway::App::build_with(settings, context.clone(), others).await?, context))
    }
}

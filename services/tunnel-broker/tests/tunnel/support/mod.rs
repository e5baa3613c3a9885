//! A small fleet for each test.

mod certificates;
mod registry;
mod relay;
mod targets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tempfile::TempDir;
use wolfpack_rpc::auth::{Standing, Standings};
use wolfpack_rpc::{Authority, ByteBudget, ClientTls, PeerConfig, RpcChannel};
use wolfpack_runtime::{Context, ShutdownReport, Telemetry};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, Builder, Dialer, TunnelStream};
use wolfpack_tunnel_broker::exposure::Exposures;
use wolfpack_tunnel_broker::state::Broker;
use wolfpack_tunnel_broker::{Addresses, App, Config};
use wolfpack_types::{
    ApiKeyId, Endpoint, ExecutionId, Fault, Principal, ProjectId, Reason, Role, SandboxId, Target,
    UserId, WolfId,
};

pub(crate) use certificates::Ca;
pub(crate) use registry::Registry;
pub(crate) use relay::Relay;
pub(crate) use targets::{Tcp, checksum, echo, pattern, silent, sink_then_send, source, talker};

/// Long enough for anything that works.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Bearers that say who they are: `wp_{project}`, with `.admin`, `.brief` or `.platform`
/// behind for those with more to say, and `sandbox.{id}.{project}`.
#[derive(Default)]
pub(crate) struct Bearers(pub(crate) Arc<Standings>);

#[async_trait]
impl Authority for Bearers {
    async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
        let (id, rank) = key.split_once('.').unwrap_or((key, ""));
        let project = id.strip_prefix("wp_").and_then(|id| ProjectId::parse(id).ok());
        project
            .map(|project| Principal::User {
                user: UserId::parse("someone").unwrap(),
                key: ApiKeyId::parse("key").unwrap(),
                project,
                role: if rank.is_empty() { Role::Developer } else { Role::Admin },
                platform_admin: rank == "platform",
                // One that is over in a moment.
                expires: (rank == "brief").then(|| SystemTime::now() + Duration::from_secs(2)),
            })
            .ok_or_else(|| Fault::new(Reason::ApiKeyInvalid, "no such key"))
    }

    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault> {
        let parts: Vec<&str> = token.split('.').collect();
        let [_, sandbox, project] = parts.as_slice() else {
            return Err(Fault::new(Reason::SandboxTokenInvalid, "not a token"));
        };
        Ok(Principal::Sandbox {
            sandbox: SandboxId::parse(sandbox)?,
            project: ProjectId::parse(project)?,
            execution: ExecutionId::parse("boot-1")?,
        })
    }

    fn standing(&self, principal: &Principal) -> Option<Standing> {
        self.0.hold(principal)
    }
}

/// A broker that runs.
pub(crate) struct Running {
    pub(crate) context: Context,
    pub(crate) addresses: Addresses,
    pub(crate) broker: Arc<Broker>,
    pub(crate) exposures: Arc<Exposures>,
    /// Credentials that the broker's server follows.
    pub(crate) standings: Arc<Standings>,
}

impl Running {
    pub(crate) async fn stop(&self) -> ShutdownReport {
        self.context.supervisor.shutdown(SOON).await
    }
}

/// Certificates, a registry and a broker.
pub(crate) struct Fleet {
    pub(crate) folder: TempDir,
    pub(crate) ca: Ca,
    pub(crate) registry: Registry,
    pub(crate) running: Running,
    /// Of agents and callers.
    pub(crate) context: Context,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A fleet whose broker has this telemetry.
    pub(crate) async fn traced(telemetry: Telemetry) -> Self {
        Self::build(|_| {}, Context::with(telemetry)).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::build(change, Context::quiet("tunnel-broker")).await
    }

    async fn build(change: impl FnOnce(&mut Config), context: Context) -> Self {
        wolfpack_runtime::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let registry = Registry::start(&ca, folder.path()).await;
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            agents: "127.0.0.1:0".parse().unwrap(),
            tls: Some(ca.service(folder.path(), "tunnel-broker")),
            registry: PeerConfig::at(format!("https://{}", registry.address)),
            drain: Duration::from_millis(200),
            ..Config::default()
        };
        change(&mut config);
        let running = Self::run_in(config, context).await;
        Self { folder, ca, registry, running, context: Context::quiet("test") }
    }

    pub(crate) async fn run(config: Config) -> Running {
        Self::run_in(config, Context::quiet("tunnel-broker")).await
    }

    /// One more broker, whose ports are without TLS.
    pub(crate) async fn run_plain(&self) -> Running {
        let tls = ClientTls::load(self.config().tls.as_ref().unwrap()).unwrap();
        let config = Config { tls: None, ..self.elsewhere() };
        Self::run_as(config, &tls, Context::quiet("tunnel-broker")).await
    }

    async fn run_in(config: Config, context: Context) -> Running {
        let tls = ClientTls::load(config.tls.as_ref().unwrap()).unwrap();
        Self::run_as(config, &tls, context).await
    }

    async fn run_as(config: Config, tls: &ClientTls, context: Context) -> Running {
        let registry = RpcChannel::to_service(&config.registry, "registry", Some(tls)).unwrap();
        let bearers = Bearers::default();
        let standings = bearers.0.clone();
        let app = App::with_authority(config, context.clone(), registry, Arc::new(bearers))
            .await
            .unwrap();
        let (addresses, broker, exposures) = (app.addresses(), app.broker(), app.exposures());
        context.supervisor.spawn_essential("broker", app.run());
        Running { context, addresses, broker, exposures, standings }
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            listen: self.running.addresses.internal,
            agents: self.running.addresses.agents,
            tls: Some(self.ca.service(self.folder.path(), "tunnel-broker")),
            registry: PeerConfig::at(format!("https://{}", self.registry.address)),
            drain: Duration::from_millis(200),
            ..Config::default()
        }
    }

    /// For one more broker, at ports of its own.
    pub(crate) fn elsewhere(&self) -> Config {
        let anywhere = "127.0.0.1:0".parse().unwrap();
        Config { listen: anywhere, agents: anywhere, ..self.config() }
    }

    /// A channel of a wolf to an agent port.
    pub(crate) fn wolf_channel(&self, wolf: &WolfId, at: SocketAddr) -> RpcChannel {
        let files = self.ca.wolf(self.folder.path(), wolf);
        channel(at, &ClientTls::load(&files).unwrap())
    }

    /// A channel of a sandbox to the agent port.
    pub(crate) fn sandbox_channel(&self, sandbox: &SandboxId, project: &ProjectId) -> RpcChannel {
        let tls = ClientTls::roots_only(self.ca.pem().as_bytes()).unwrap();
        channel(self.running.addresses.agents, &tls)
            .with_bearer(secrecy_string(&format!("sandbox.{sandbox}.{project}")))
    }

    /// A channel of a service to the internal port.
    pub(crate) fn service_channel(&self, service: &str) -> RpcChannel {
        self.service_channel_at(service, self.running.addresses.internal)
    }

    /// A channel of a service to an internal port.
    pub(crate) fn service_channel_at(&self, service: &str, at: SocketAddr) -> RpcChannel {
        let files = self.ca.service(self.folder.path(), service);
        channel(at, &ClientTls::load(&files).unwrap())
    }

    pub(crate) fn dialer(&self) -> Dialer {
        Dialer::new(self.service_channel("sandbox-manager"))
    }

    /// An agent of a fresh wolf that is not started.
    pub(crate) fn wolf(&self, wolf: &WolfId) -> Builder {
        let config = AgentTunnelConfig::new(Endpoint::Wolf(wolf.clone()), "test");
        AgentTunnel::builder(config, self.wolf_channel(wolf, self.running.addresses.agents))
    }

    /// A wolf that is attached and dials `tcp` for the target `port`.
    pub(crate) async fn wolf_to(&self, tcp: SocketAddr) -> Endpoint {
        let wolf = WolfId::new();
        let mut builder = self.wolf(&wolf);
        builder.dial_target("port", Arc::new(Tcp(tcp)));
        let agent = builder.start(&self.context.supervisor);
        attached(&agent).await;
        Endpoint::Wolf(wolf)
    }

    pub(crate) async fn dial(&self, endpoint: &Endpoint) -> Result<TunnelStream, Fault> {
        self.dialer().dial(endpoint, &target("port"), SOON).await
    }

    /// Waits until the broker's counts are these: tunnels, parked,
    /// connections, waiting. `None` is any.
    pub(crate) async fn counts(&self, want: [Option<u64>; 4]) {
        let fits = || {
            let counts = self.running.broker.counts();
            want.iter().zip(counts).all(|(want, have)| want.is_none_or(|want| want == have))
        };
        eventually(fits, || format!("{want:?}, but {:?}", self.running.broker.counts())).await;
    }
}

/// Polls until it holds.
pub(crate) async fn eventually(holds: impl Fn() -> bool, what: impl Fn() -> String) {
    let end = tokio::time::Instant::now() + SOON;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "did not come: {}", what());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn attached(agent: &AgentTunnel) {
    let mut seen = agent.attached();
    tokio::time::timeout(SOON, seen.wait_for(|attached| *attached))
        .await
        .expect("attaches")
        .unwrap();
}

pub(crate) fn channel(at: SocketAddr, tls: &ClientTls) -> RpcChannel {
    let peer = PeerConfig::at(format!("https://{at}"));
    RpcChannel::for_tunnel(&peer, "tunnel-broker", Some(tls), &ByteBudget::default()).unwrap()
}

pub(crate) fn target(name: &str) -> Target {
    Target::parse(name).unwrap()
}

fn secrecy_string(text: &str) -> secrecy::SecretString {
    secrecy::SecretString::from(text.to_owned())
}

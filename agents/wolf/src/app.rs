//! Puts the agent together and runs it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::sync::watch;
use wolfpack_proto::agent::v1::wolf_runtime_service_server::WolfRuntimeServiceServer;
use wolfpack_rpc::server::admin::Admin;
use wolfpack_rpc::{ClientTls, PeerConfig, Profile, RpcChannel, Server};
use wolfpack_runtime::config::secret_from;
use wolfpack_runtime::{BoxError, Context};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, Target as TunnelTarget};

use crate::admission::{Admission, EpochFile};
use crate::config::{Config, HostPort};
use crate::engine::{DockerEngine, Engine};
use crate::join::{self, IdentityStore, WolfIdentity};
use crate::lifecycle::{Lifecycle, Parts, RelayPorts, Settings};
use crate::link::{InventorySource, Link};
use crate::metrics::Metrics;
use crate::probe::{self, EngineHealth};
use crate::relay::Target;
use crate::runtime::{self, AgentDialer, NoBearers, POLICY, Runtime};
use crate::sandbox::directory;
use crate::setup::{self, Setup};
use crate::targets;

/// A wolf's agent that has joined and is about to run.
pub struct App {
    context: Context,
    config: Config,
    store: IdentityStore,
    identity: WolfIdentity,
    lifecycle: Lifecycle,
    engine: Arc<dyn Engine>,
    /// The broker's agent port, as this wolf.
    broker: RpcChannel,
    broker_address: HostPort,
    metrics: Metrics,
    root: PathBuf,
    inventory: InventorySource,
    admin: Option<Admin>,
}

impl App {
    /// Joins where that was not done yet, and prepares the agent for the
    /// engine of the configuration. Waits for a gateway that is away, not for
    /// an engine that is.
    ///
    /// # Errors
    /// When the join token is refused, a file cannot be read or written, or an
    /// address is not to be had; and when it is stopped meanwhile.
    pub async fn build(config: Config, context: Context) -> Result<Self, BoxError> {
        let engine = Arc::new(DockerEngine::new(config.docker_socket()));
        Self::build_with(config, context, engine).await
    }

    /// As [`App::build`], with another engine.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn build_with(
        mut config: Config,
        context: Context,
        engine: Arc<dyn Engine>,
    ) -> Result<Self, BoxError> {
        wolfpack_runtime::install_crypto_provider();
        if config.display_name.is_empty() {
            config.display_name = host_name();
        }
        let admin = match config.metrics {
            Some(address) => Some(Admin::bind(address).await?),
            None => None,
        };
        let folders = prepare(&config).await?;
        let identity = identity(&config, &folders.store, &context).await?;
        let server = config.server_authority()?;
        let broker_address = agent_endpoint(&config, &identity, &server)?;
        let tls = ClientTls::load(&folders.store.tls_files())?;
        let peer = PeerConfig::at(format!("https://{broker_address}"));
        let broker = RpcChannel::to_service(&peer, "tunnel-broker", Some(&tls))?;
        let metrics = Metrics::new(&context.telemetry.meter());
        let inventory = InventorySource::new(&config);
        let source = inventory.clone();
        let measured = tokio::task::spawn_blocking(move || source.measure(None)).await?;
        let roots = folders.store.clone();
        let lifecycle = Lifecycle::new(Parts {
            engine: engine.clone(),
            settings: Settings {
                wolf: identity.wolf.clone(),
                root: folders.root.clone(),
                bin_dir: folders.bin_dir,
                otlp_endpoint: config.sandbox_otlp_endpoint.clone(),
                uid: rustix::process::geteuid().as_raw(),
                gpus: measured.gpus.clone(),
            },
            trust_roots: Arc::new(move || roots.trust_roots()),
            admission: Admission::new(identity.wolf.clone(), measured.capacity(), folders.epoch.1),
            epoch: folders.epoch,
            supervisor: context.supervisor.clone(),
            metrics: metrics.clone(),
        });
        Ok(Self {
            context,
            config,
            store: folders.store,
            identity,
            lifecycle,
            engine,
            broker,
            broker_address,
            metrics,
            root: folders.root,
            inventory,
            admin,
        })
    }

    /// Who this wolf is.
    #[must_use]
    pub fn identity(&self) -> &WolfIdentity {
        &self.identity
    }

    /// Its sandboxes.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The sockets it listens on, by name: `metrics`, when there is one. The
    /// relay's are on the bridge, see [`crate::lifecycle::Ready`].
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<&'static str, SocketAddr> {
        self.admin.iter().map(|admin| ("metrics", admin.local_addr())).collect()
    }

    /// Runs until the supervisor stops. Sandboxes go on without the agent; the
    /// next one adopts them.
    ///
    /// # Errors
    /// When a newer agent of this wolf took over, or a part cannot be run.
    pub async fn run(self) -> Result<(), BoxError> {
        let context = self.context.clone();
        let supervisor = context.supervisor.clone();
        let stop = supervisor.token();

        let setup = Arc::new(self.setup()?);
        let lifecycle = self.lifecycle.clone();
        let leaving = setup.clone();
        supervisor.spawn_restarting("engine-setup", move || {
            let setup = setup.clone();
            async move { setup.run().await }
        });
        let observer = self.lifecycle.observer().clone();
        let events_stop = stop.clone();
        supervisor.spawn_restarting("engine-events", move || {
            let (observer, stop) = (observer.clone(), events_stop.clone());
            async move { Ok(observer.follow(&stop).await?) }
        });
        let (health, health_seen) = watch::channel(EngineHealth::default());
        let probing = probe::run(self.engine.clone(), probe::EVERY, health, stop.clone());
        supervisor.spawn("engine-probe", probing);

        let endpoint = Endpoint::Wolf(self.identity.wolf.clone());
        let tunnel_config = AgentTunnelConfig::new(endpoint, env!("CARGO_PKG_VERSION"));
        let instance = tunnel_config.instance.clone();
        let mut tunnel = AgentTunnel::builder(tunnel_config, self.broker.clone());
        let connections = tunnel.listen(TunnelTarget::RUNTIME).map(|accepted| {
            accepted.map(|io| {
                let peer = runtime::peer(io.peer());
                (io, peer)
            })
        });
        tunnel.dial_family(
            TunnelTarget::SANDBOX_AGENT,
            Arc::new(AgentDialer {
                observer: self.lifecycle.observer().clone(),
                root: self.root.clone(),
            }),
        );
        let beside = targets::export(&mut tunnel, &self.config.targets)?;
        supervisor.spawn("host-targets", targets::say(beside));
        let server = Server::builder(&context, POLICY, Arc::new(NoBearers))
            .descriptor_set(wolfpack_proto::DESCRIPTOR_SET)
            .add_service(WolfRuntimeServiceServer::new(Runtime::new(self.lifecycle.clone())))
            .incoming(connections, Profile::tunnelled())
            .build();
        if let Some(admin) = self.admin {
            let (context, health) = (context.clone(), server.health());
            supervisor
                .spawn_essential("metrics", async move { admin.serve(&context, health).await });
        }
        let tunnel = tunnel.start(&supervisor);

        let link = Link {
            broker: self.broker.clone(),
            instance,
            lifecycle: self.lifecycle.clone(),
            health: health_seen,
            inventory: self.inventory,
            display_name: self.config.display_name.clone(),
            labels: self.config.labels.clone(),
            supervisor: supervisor.clone(),
        };
        supervisor.spawn("registry-link", link.run());
        let (store, broker, renewal_stop) = (self.store, self.broker, stop.clone());
        supervisor.spawn("certificate-renewal", async move {
            join::keep_renewed(&store, &broker, &renewal_stop).await;
        });

        let mut ended = tunnel.ended();
        let superseded = async {
            // The guard must not live over an await: this future is sent to a task.
            let fault = ended.wait_for(Option::is_some).await.map(|fault| fault.clone());
            match fault {
                Ok(fault) => fault,
                // The tunnel was stopped with the supervisor.
                Err(_) => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            served = server.serve() => served,
            Some(fault) = superseded => Err(format!(
                "the wolf's tunnel was given up, stop this agent or the other: {fault}"
            )
            .into()),
        };
        if stop.is_cancelled() && lifecycle.holding() == 0 {
            leaving.leave().await;
        }
        outcome
    }

    fn setup(&self) -> Result<Setup, BoxError> {
        let relay = &self.config.relay;
        let target = |name, said: &Option<String>, default: &HostPort| {
            let address = match said {
                Some(said) => HostPort::parse(said, None)?,
                None => default.clone(),
            };
            Ok::<_, String>(Target { name, address: Arc::new(ArcSwap::from_pointee(address)) })
        };
        Ok(Setup {
            lifecycle: self.lifecycle.clone(),
            wolf: self.identity.wolf.clone(),
            network: self
                .config
                .network
                .clone()
                .unwrap_or_else(|| setup::network_name(&self.identity.wolf)),
            data_dir: self.config.data_dir.clone(),
            wanted: RelayPorts { gateway: relay.gateway_port, broker: relay.broker_port },
            gateway: target("gateway", &relay.gateway, &self.config.server_authority()?)?,
            broker: target("broker", &relay.broker, &self.broker_address)?,
            supervisor: self.context.supervisor.clone(),
            metrics: self.metrics.clone(),
            relay: Mutex::new(None),
            guarded: Mutex::new(None),
        })
    }
}

/// What was found or made in the data directory.
struct Folders {
    store: IdentityStore,
    root: PathBuf,
    bin_dir: PathBuf,
    epoch: (EpochFile, i64),
}

async fn prepare(config: &Config) -> Result<Folders, BoxError> {
    let (data_dir, binary) = (config.data_dir.clone(), config.sandbox_agent_binary.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        // Until the engine said whether it remaps users; see Setup.
        directory::close(&data_dir, None)?;
        let data_dir = data_dir.canonicalize()?;
        let root = directory::root(&data_dir);
        let bin_dir = install(&data_dir, &binary)?;
        let epoch_file = EpochFile::in_dir(&data_dir);
        let epoch = epoch_file.read()?;
        Ok::<_, io::Error>(Folders {
            store: IdentityStore::open(&data_dir)?,
            root,
            bin_dir,
            epoch: (epoch_file, epoch),
        })
    });
    Ok(prepared.await??)
}

fn install(data_dir: &Path, binary: &Path) -> io::Result<PathBuf> {
    directory::install_agent(data_dir, binary).map_err(|error| {
        let words = format!(
            "the sandbox agent's binary {} cannot be installed: {error}; set sandbox_agent_binary",
            binary.display()
        );
        io::Error::new(error.kind(), words)
    })
}

async fn identity(
    config: &Config,
    store: &IdentityStore,
    context: &Context,
) -> Result<WolfIdentity, BoxError> {
    if let Some(identity) = store.current() {
        return Ok(identity);
    }
    let token: Option<SecretString> =
        secret_from(config.join_token.clone(), config.join_token_file.as_deref())?;
    let token =
        token.ok_or("this wolf has not joined: set join_token_file (see CreateJoinToken)")?;
    let stop = context.supervisor.token();
    join::join(store, &config.server, &token, &config.display_name, &stop).await?;
    let identity = store.current().ok_or("the wolf joined and its identity is not there")?;
    tracing::info!(wolf = %identity.wolf, "joined");
    Ok(identity)
}

/// Where to attach: what the operator says, else what was told at joining.
fn agent_endpoint(
    config: &Config,
    identity: &WolfIdentity,
    server: &HostPort,
) -> Result<HostPort, BoxError> {
    let said = config.agent_endpoint.as_deref().unwrap_or(&identity.agent_endpoint);
    let mut endpoint = HostPort::parse(said, None)?;
    let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::from([0u16; 8])];
    let nowhere = endpoint.host.parse().is_ok_and(|address| unspecified.contains(&address));
    if endpoint.host.is_empty() || nowhere {
        endpoint.host.clone_from(&server.host);
    }
    Ok(endpoint)
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn the_data_directory_is_closed_before_anything_is_in_it() {
        let above = tempfile::tempdir().unwrap();
        let binary = above.path().join("agent");
        std::fs::write(&binary, "agent").unwrap();
        let data_dir = above.path().join("data");
        directory::make_dir(&data_dir, 0o755).unwrap();
        let config = Config { data_dir, sandbox_agent_binary: binary, ..Config::default() };
        let folders = prepare(&config).await.unwrap();
        for folder in [&config.data_dir, &folders.root] {
            let mode = std::fs::metadata(folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700, "{}", folder.display());
        }
    }
}

//! Puts the agent together and runs it.

mod bridges;
mod prepare;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::watch;
use wolfpack_proto::agent::v1::container_service_server::ContainerServiceServer;
use wolfpack_proto::agent::v1::wolf_doctor_service_server::WolfDoctorServiceServer;
use wolfpack_proto::agent::v1::wolf_image_service_server::WolfImageServiceServer;
use wolfpack_proto::agent::v1::wolf_runtime_service_server::WolfRuntimeServiceServer;
use wolfpack_rpc::server::admin::Admin;
use wolfpack_rpc::{ByteBudget, ClientTls, PeerConfig, Profile, RpcChannel, Server};
use wolfpack_runtime::{BoxError, Context, DataThread};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, BrokerAt};
use wolfpack_types::{Endpoint, Target as TunnelTarget};

use crate::admission::Admission;
use crate::bridge::Bridges;
use crate::config::Config;
use crate::disk_bound::{self, DiskBound};
use crate::doctor::{Doctor, ECHO_MESSAGE, Place};
use crate::engine::{DockerEngine, Engine};
use crate::images::{self, HostDisk, Images};
use crate::join::{self, IdentityStore, WolfIdentity};
use crate::lifecycle::{Lifecycle, Parts, Settings};
use crate::link::{ImageNews, InventorySource, Link};
use crate::metrics::Metrics;
use crate::mounts::Stage;
use crate::probe::{self, EngineHealth};
use crate::runtime::{
    self, AgentDialer, ImageRpcs, LOAD_MESSAGE, NoBearers, POLICY, Runtime, SiblingRpcs,
};
use crate::setup::Setup;
use crate::superseded::Superseded;
use crate::targets;
use prepare::{agent_endpoint, host_name, identity, prepare};

/// A wolf's agent that has joined and is about to run.
pub struct App {
    context: Context,
    config: Config,
    store: IdentityStore,
    identity: WolfIdentity,
    lifecycle: Lifecycle,
    images: Images,
    disk_bound: Arc<DiskBound>,
    engine: Arc<dyn Engine>,
    /// The broker's agent port, as this wolf.
    broker: RpcChannel,
    /// Where the tunnel runs.
    data_thread: DataThread,
    /// All brokers it may attach at, that one first.
    brokers: (BrokerAt, Vec<BrokerAt>),
    bridges: Arc<Bridges>,
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
        let engine = DockerEngine::new(config.docker_socket());
        let engine = Arc::new(engine.with_registries(config.registries.clone()));
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
        let data_thread = DataThread::start("tunnel-data", &context)?;
        // One for all brokers: it is this process that pays.
        let budget = ByteBudget::default();
        let at = |address: String| {
            let _there = data_thread.enter();
            let peer = PeerConfig::at(format!("https://{address}"));
            RpcChannel::for_tunnel(&peer, "tunnel-broker", Some(&tls), &budget)
                .map(|channel| BrokerAt { address, channel })
        };
        let first = at(broker_address.to_string())?;
        let broker = first.channel.clone();
        let others = config.other_endpoints.iter().cloned().map(at).collect::<Result<_, _>>()?;
        let metrics = Metrics::new(&context.telemetry.meter());
        let inventory = InventorySource::new(&config);
        let measured = inventory.measure(None).await;
        let roots = folders.store.clone();
        let wolf = &identity.wolf;
        let bridges =
            bridges::bridges(&config, &context, engine.clone(), wolf, &broker_address, &metrics)?;
        let lifecycle = Lifecycle::new(Parts {
            engine: engine.clone(),
            settings: Settings {
                wolf: identity.wolf.clone(),
                root: folders.root.clone(),
                bin_dir: folders.bin_dir,
                otlp_endpoint: config.sandbox_otlp_endpoint.clone(),
                tcp_ports: config.targets.sandbox_tcp.clone(),
                uid: rustix::process::geteuid().as_raw(),
                gpus: inventory.gpus().clone(),
                docker: config.docker.clone(),
                mounts: config.mounts.clone(),
                stage: Stage::in_dir(&folders.data_dir),
            },
            bridges: bridges.clone(),
            socket: config.docker_socket().to_owned(),
            trust_roots: Arc::new(move || roots.trust_roots()),
            admission: Admission::new(identity.wolf.clone(), measured.capacity(), folders.epoch.1),
            epoch: folders.epoch,
            supervisor: context.supervisor.clone(),
            metrics: metrics.clone(),
        });
        let parts = images::Parts {
            store: engine.clone(),
            config: config.images.clone(),
            disk: Arc::new(HostDisk),
            data_dir: config.data_dir.clone(),
            supervisor: context.supervisor.clone(),
        };
        let images = tokio::task::spawn_blocking(move || Images::new(parts)).await?;
        lifecycle.set_images(images.clone());
        let disk_bound = Arc::new(DiskBound::new(disk_bound::Parts {
            lifecycle: lifecycle.clone(),
            disk: Arc::new(HostDisk),
            config: config.images.clone(),
            root: folders.root.clone(),
            metrics,
            pace: disk_bound::Pace::default(),
        }));
        Ok(Self {
            context,
            config,
            store: folders.store,
            identity,
            lifecycle,
            images,
            disk_bound,
            engine,
            broker,
            data_thread,
            brokers: (first, others),
            bridges,
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

        let setup = Arc::new(self.setup());
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

        let (images, keep_stop) = (self.images.clone(), stop.clone());
        supervisor.spawn_restarting("images", move || {
            let (images, stop) = (images.clone(), keep_stop.clone());
            async move {
                images.keep(stop).await;
                Ok(())
            }
        });

        let (bound, bound_stop) = (self.disk_bound.clone(), stop.clone());
        supervisor.spawn_restarting("disk-bound", move || {
            let (bound, stop) = (bound.clone(), bound_stop.clone());
            async move {
                bound.keep(stop).await;
                Ok(())
            }
        });

        let endpoint = Endpoint::Wolf(self.identity.wolf.clone());
        let tunnel_config = AgentTunnelConfig::new(endpoint, env!("CARGO_PKG_VERSION"));
        let instance = tunnel_config.instance.clone();
        let mut tunnel = AgentTunnel::builder_of(tunnel_config, self.brokers.0, self.brokers.1);
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
            .add_service(ContainerServiceServer::new(SiblingRpcs::new(self.lifecycle.clone())))
            .add_service(
                WolfImageServiceServer::new(ImageRpcs::new(self.images.clone()))
                    .max_decoding_message_size(LOAD_MESSAGE),
            )
            .add_service(
                WolfDoctorServiceServer::new(Doctor::new(Place::of(&self.config)))
                    .max_decoding_message_size(ECHO_MESSAGE),
            )
            .incoming(connections, Profile::tunnelled())
            .build();
        if let Some(admin) = self.admin {
            let (context, health) = (context.clone(), server.health());
            supervisor
                .spawn_essential("metrics", async move { admin.serve(&context, health).await });
        }
        let tunnel = {
            let _there = self.data_thread.enter();
            tunnel.start(&supervisor)
        };

        let link = Link {
            broker: self.broker.clone(),
            instance,
            lifecycle: self.lifecycle.clone(),
            health: health_seen,
            inventory: self.inventory,
            images: ImageNews::of(&self.images),
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
            Some(fault) = superseded => Err(Superseded(fault).into()),
        };
        if stop.is_cancelled() && lifecycle.holding() == 0 {
            leaving.leave().await;
        }
        outcome
    }

    fn setup(&self) -> Setup {
        Setup {
            lifecycle: self.lifecycle.clone(),
            bridges: self.bridges.clone(),
            data_dir: self.config.data_dir.clone(),
            socket: self.config.docker_socket().to_owned(),
            supervisor: self.context.supervisor.clone(),
        }
    }
}

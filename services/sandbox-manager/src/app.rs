//! The sandbox-manager as a whole: built from a configuration, then run.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, Semaphore};
use wolfpack_proto::DESCRIPTOR_SET;
use wolfpack_proto::sandbox::v1::container_service_server::ContainerServiceServer;
use wolfpack_proto::sandbox::v1::desktop_service_server::DesktopServiceServer;
use wolfpack_proto::sandbox::v1::doctor_service_server::DoctorServiceServer;
use wolfpack_proto::sandbox::v1::image_service_server::ImageServiceServer;
use wolfpack_proto::sandbox::v1::port_service_server::PortServiceServer;
use wolfpack_proto::sandbox::v1::sandbox_io_service_server::SandboxIoServiceServer;
use wolfpack_proto::sandbox::v1::sandbox_service_server::SandboxServiceServer;
use wolfpack_rpc::auth::RemoteAuthority;
use wolfpack_rpc::server::admin::Admin;
use wolfpack_rpc::server::{BoundListener, ListenConfig, Profile, Server};
use wolfpack_runtime::{BoxError, Context};
use wolfpack_types::InstanceId;

use crate::config::Config;
use crate::domain::Defaults;
use crate::feed::Feed;
use crate::fleet::{Containers, Fleet, Sweep, Tunnels, Wolves};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::policy::POLICY;
use crate::reach::Reach;
use crate::reconcile::{ChangedWolves, LongTurns, Queue, Reconciler};
use crate::service::{Api, Parts};
use crate::store::Sandboxes;

/// A message of a caller: 4 MiB of input and what is around it.
const MESSAGE: usize = 5 << 20;

/// The sandbox-manager, bound to its sockets and its database.
pub struct App {
    config: Config,
    context: Context,
    listener: BoundListener,
    admin: Option<Admin>,
    peers: Peers,
    sandboxes: Sandboxes,
    fleet: Fleet,
    sweep: Sweep,
    feed: Feed,
    queue: Queue,
    reconciler: Arc<Reconciler>,
    api: Api,
    holder: String,
}

/// Where the sandbox-manager listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// `/metrics` and `/healthz`.
    pub metrics: Option<SocketAddr>,
}

impl App {
    /// Opens the database and binds the sockets. Nothing is served or
    /// reconciled yet; other services are reached only once it runs.
    ///
    /// # Errors
    /// When a file, the database or an address cannot be used.
    pub async fn build(config: Config, context: Context) -> Result<Self, BoxError> {
        let listener = listen(&config).bind().await?;
        let admin = match config.metrics {
            Some(address) => Some(Admin::bind(address).await?),
            None => None,
        };
        let metrics = Metrics::new(&context.telemetry.meter());
        let peers = Peers::new(&config)?;
        let sandboxes = Sandboxes::open(&config.database).await?;
        let feed = Feed::open(sandboxes.clone(), &config.watch).await?;
        let queue = Queue::default();
        let fleet = Fleet {
            wolves: Arc::new(Wolves::new(peers.clone())),
            tunnels: Arc::new(Tunnels::new(peers.clone())),
            containers: Arc::new(Containers::new(peers.clone())),
        };
        let reach = Reach::new(&peers, fleet.clone(), metrics.clone(), config.reach.clone());
        let holder = InstanceId::new().to_string();
        let reconciler = Arc::new(Reconciler {
            sandboxes: sandboxes.clone(),
            peers: peers.clone(),
            fleet: fleet.clone(),
            reach: reach.clone(),
            queue: queue.clone(),
            feed: feed.clone(),
            metrics: metrics.clone(),
            starts: Semaphore::new(config.reconcile.starts),
            ends: Semaphore::new(config.reconcile.ends),
            long: LongTurns::new(&config.reconcile),
            all: Notify::new(),
            changed: ChangedWolves::default(),
            config: config.reconcile.clone(),
            holder: holder.clone(),
            supervisor: context.supervisor.clone(),
        });
        let grace = config.reconcile.orphan_grace;
        let sweep = Sweep::new(peers.clone(), sandboxes.clone(), metrics.clone(), grace);
        let api = Api::new(Parts {
            sandboxes: sandboxes.clone(),
            feed: feed.clone(),
            queue: queue.clone(),
            reach,
            peers: peers.clone(),
            metrics,
            defaults: Defaults {
                image: config.defaults.image.clone(),
                desktop_image: config.defaults.desktop_image.clone(),
                docker_image: config.defaults.docker_image.clone(),
                desktop_docker_image: config.defaults.desktop_docker_image.clone(),
            },
            holder: holder.clone(),
            lease: config.reconcile.lease,
            ingress_url: config.ingress_url.clone().map(OnceLock::from).unwrap_or_default(),
        });
        Ok(Self {
            config,
            context,
            listener,
            admin,
            peers,
            sandboxes,
            fleet,
            sweep,
            feed,
            queue,
            reconciler,
            api,
            holder,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses {
            grpc: self.listener.local_addr(),
            metrics: self.admin.as_ref().map(Admin::local_addr),
        }
    }

    /// Says where browsers find the ports of sandboxes, as `ingress_url` does; for
    /// whoever learns it later.
    pub fn set_ingress_url(&self, url: String) {
        self.api.set_ingress_url(url);
    }

    /// Serves and reconciles until the context's supervisor is told to stop,
    /// then drains. What is under way goes on at the next start, or at another
    /// replica at once.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn run(self) -> Result<(), BoxError> {
        self.spawn_watches();
        self.spawn_reconciler();
        let authority = RemoteAuthority::new(self.peers.registry().clone(), &self.context);
        let api = self.api;
        let server = Server::builder(&self.context, POLICY, authority)
            .descriptor_set(DESCRIPTOR_SET)
            .add_service(SandboxServiceServer::new(api.clone()).max_decoding_message_size(MESSAGE))
            .add_service(
                SandboxIoServiceServer::new(api.clone()).max_decoding_message_size(MESSAGE),
            )
            .add_service(DesktopServiceServer::new(api.clone()).max_decoding_message_size(MESSAGE))
            .add_service(ImageServiceServer::new(api.clone()).max_decoding_message_size(MESSAGE))
            .add_service(DoctorServiceServer::new(api.clone()))
            .add_service(PortServiceServer::new(api.clone()))
            .add_service(ContainerServiceServer::new(api))
            .listen(self.listener, Profile::internal())
            .build();
        if let Some(admin) = self.admin {
            let (context, health) = (self.context.clone(), server.health());
            self.context.supervisor.spawn_essential("manager.admin", async move {
                admin.serve(&context, health).await
            });
        }
        let served = server.serve().await;
        if let Err(error) = self.sandboxes.let_all_go(&self.holder).await {
            tracing::warn!(%error, "rows stay owned until their lease ends");
        }
        served
    }

    /// What is seen of the fleet, and what is written by whomever.
    fn spawn_watches(&self) {
        let supervisor = &self.context.supervisor;
        let token = supervisor.token();
        let (feed, queue, stop) = (self.feed.clone(), self.queue.clone(), token.clone());
        supervisor.spawn_restarting("manager.feed", move || {
            let (feed, queue, stop) = (feed.clone(), queue.clone(), stop.clone());
            async move {
                feed.run(queue, stop).await;
                Ok(())
            }
        });
        let (wolves, queue, stop) =
            (Arc::clone(&self.fleet.wolves), self.queue.clone(), token.clone());
        supervisor.spawn_restarting("manager.wolves", move || {
            let (wolves, queue, stop) = (Arc::clone(&wolves), queue.clone(), stop.clone());
            async move { wolves.run(queue, stop).await }
        });
        let (tunnels, stop) = (Arc::clone(&self.fleet.tunnels), token.clone());
        supervisor.spawn_restarting("manager.tunnels", move || {
            let (tunnels, stop) = (Arc::clone(&tunnels), stop.clone());
            async move { tunnels.run(stop).await }
        });
        let (fleet, sweep, queue) = (self.fleet.clone(), self.sweep.clone(), self.queue.clone());
        let watched = supervisor.clone();
        supervisor.spawn_restarting("manager.containers", move || {
            let (fleet, sweep, queue) = (fleet.clone(), sweep.clone(), queue.clone());
            let supervisor = watched.clone();
            async move {
                fleet.containers.run(fleet.tunnels, sweep, queue, supervisor).await;
                Ok(())
            }
        });
    }

    /// Who works on rows, and what looks at them without a reason.
    fn spawn_reconciler(&self) {
        let supervisor = &self.context.supervisor;
        let token = supervisor.token();
        self.queue.serve(&self.reconciler);
        let (reconciler, stop) = (Arc::clone(&self.reconciler), token.clone());
        supervisor.spawn_restarting("manager.resync", move || {
            let (reconciler, stop) = (Arc::clone(&reconciler), stop.clone());
            async move {
                reconciler.resync(stop).await;
                Ok(())
            }
        });
        let (reconciler, stop) = (Arc::clone(&self.reconciler), token.clone());
        supervisor.spawn_restarting("manager.changed_wolves", move || {
            let (reconciler, stop) = (Arc::clone(&reconciler), stop.clone());
            async move {
                reconciler.follow_wolves(stop).await;
                Ok(())
            }
        });
        let (reconciler, stop) = (Arc::clone(&self.reconciler), token.clone());
        let retention = self.config.retention.clone();
        supervisor.spawn_restarting("manager.purge", move || {
            let (reconciler, stop) = (Arc::clone(&reconciler), stop.clone());
            let retention = retention.clone();
            async move {
                reconciler.purge(retention, stop).await;
                Ok(())
            }
        });
        let (sweep, fleet, stop) = (self.sweep.clone(), self.fleet.clone(), token);
        supervisor.spawn_restarting("manager.sweep", move || {
            let (sweep, fleet, stop) = (sweep.clone(), fleet.clone(), stop.clone());
            async move {
                sweep.run(fleet.containers, fleet.tunnels, stop).await;
                Ok(())
            }
        });
    }
}

/// Only services call it; users come through the gateway.
fn listen(config: &Config) -> ListenConfig {
    match &config.tls {
        Some(tls) => ListenConfig::mutual(config.listen, tls.clone()),
        None => ListenConfig::plain(config.listen),
    }
}

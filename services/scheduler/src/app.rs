//! The parts, put together.

use std::net::SocketAddr;

use sea_orm::{ConnectionTrait as _, Statement};
use tokio_util::sync::CancellationToken;
use wolfpack_proto::DESCRIPTOR_SET;
use wolfpack_proto::scheduler::v1::scheduler_service_server::SchedulerServiceServer;
use wolfpack_rpc::auth::RemoteAuthority;
use wolfpack_rpc::client::RpcChannel;
use wolfpack_rpc::server::admin::Admin;
use wolfpack_rpc::server::{ListenConfig, Profile, Server};
use wolfpack_rpc::tls::{ClientAuth, ClientTls};
use wolfpack_runtime::{BoxError, Context};
use wolfpack_store::{Engine, Store};
use wolfpack_types::InstanceId;

use crate::config::Config;
use crate::fleet::{Feed, FleetHealth};
use crate::leadership::{Elector, FileLock, Leadership};
use crate::metrics::Metrics;
use crate::service::{POLICY, Scheduler};
use crate::store::{LedgerStore, Migrator, ShardStore};
use crate::writer::{Limits, Writer};

/// The sockets that were bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC for the other services.
    pub listen: SocketAddr,
    /// `/metrics` and `/healthz`.
    pub metrics: Option<SocketAddr>,
}

/// A scheduler that is ready to run.
pub struct App {
    context: Context,
    addresses: Addresses,
    server: Server,
    admin: Option<Admin>,
    writer: Writer,
    elector: Elector,
    feed: Feed,
    /// Ends the writer, the elector and the feed, after the server has drained.
    stop: CancellationToken,
}

impl App {
    /// Binds, opens the store, makes the parts. Nothing is served before
    /// [`App::run`].
    ///
    /// # Errors
    /// When an address, a file or the database cannot be used.
    pub async fn build(config: Config, context: Context) -> Result<Self, BoxError> {
        let listen = ListenConfig {
            address: config.listen,
            client_auth: if config.tls.is_some() { ClientAuth::Required } else { ClientAuth::Off },
            tls: config.tls.clone(),
        };
        let listener = listen.bind().await?;
        let admin = match config.metrics {
            Some(address) => Some(Admin::bind(address).await?),
            None => None,
        };
        let addresses = Addresses {
            listen: listener.local_addr(),
            metrics: admin.as_ref().map(Admin::local_addr),
        };
        let store = Store::open::<Migrator>(&config.database).await?;
        let tls = config.tls.as_ref().map(ClientTls::load).transpose()?;
        let registry = RpcChannel::to_service(&config.registry, "registry", tls.as_ref())?;

        let stop = CancellationToken::new();
        let leadership = Leadership::new(config.leadership.step_down);
        let fleet = FleetHealth::new(config.stale_after);
        let shard = ShardStore::new(store.clone(), &InstanceId::new(), config.leadership.ttl);
        let elector = Elector {
            lock_file: lock_file(&store).await?,
            shard,
            times: config.leadership,
            leadership: leadership.clone(),
            stop: stop.clone(),
        };
        let limits = Limits {
            queue: config.reservations.queue,
            reservation_ttl: config.reservations.ttl,
            retention: config.reservations.retention,
        };
        let (writer, handle, commands) = Writer::new(
            LedgerStore::new(store),
            leadership,
            fleet.clone(),
            Metrics::new(&context.telemetry),
            limits,
            stop.clone(),
        );
        let feed = Feed::new(registry.clone(), commands, fleet.clone(), stop.clone());
        let authority = RemoteAuthority::new(registry, &context);
        let scheduler = Scheduler::new(handle, fleet, config.defaults);
        let server = Server::builder(&context, POLICY, authority)
            .add_service(SchedulerServiceServer::new(scheduler))
            .descriptor_set(DESCRIPTOR_SET)
            .listen(listener, Profile { drain: config.drain, ..Profile::internal() })
            .build();
        Ok(Self { context, addresses, server, admin, writer, elector, feed, stop })
    }

    /// The sockets that were bound.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until the supervisor's token is cancelled, drains, answers what
    /// waits, and gives the leadership up.
    ///
    /// # Errors
    /// When a socket fails.
    pub async fn run(self) -> Result<(), BoxError> {
        let Self { context, server, admin, writer, elector, feed, stop, .. } = self;
        // Also when this future is dropped.
        let _stop = stop.clone().drop_guard();
        let supervisor = &context.supervisor;
        supervisor.spawn_restarting("scheduler.elector", move || elector.clone().run());
        supervisor.spawn_restarting("scheduler.feed", move || feed.clone().run());
        let ended = stop.clone();
        supervisor.spawn_essential("scheduler.writer", async move {
            let result = writer.run().await;
            if ended.is_cancelled() { result } else { Err("the writer ended early".into()) }
        });
        if let Some(admin) = admin {
            let (context, health) = (context.clone(), server.health());
            supervisor.spawn_essential("scheduler.admin", async move {
                admin.serve(&context, health).await
            });
        }
        server.serve().await
    }
}

/// The lock beside a SQLite file, wherever its path was configured.
async fn lock_file(store: &Store) -> Result<Option<std::path::PathBuf>, BoxError> {
    if store.engine() == Engine::Postgres {
        return Ok(None);
    }
    let sql = "SELECT file FROM pragma_database_list WHERE name = 'main'";
    let backend = store.conn().get_database_backend();
    let row = store.conn().query_one_raw(Statement::from_string(backend, sql)).await?;
    let path: Option<String> = row.map(|row| row.try_get("", "file")).transpose()?;
    Ok(path.and_then(|path| FileLock::beside(&path)))
}

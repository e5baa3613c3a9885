//! A manager in a runtime of its own, so that it can be stopped as a crash
//! does, and a client of it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use wolfpack_proto::sandbox::v1::container_service_client::ContainerServiceClient;
use wolfpack_proto::sandbox::v1::desktop_service_client::DesktopServiceClient;
use wolfpack_proto::sandbox::v1::doctor_service_client::DoctorServiceClient;
use wolfpack_proto::sandbox::v1::image_service_client::ImageServiceClient;
use wolfpack_proto::sandbox::v1::port_service_client::PortServiceClient;
use wolfpack_proto::sandbox::v1::sandbox_io_service_client::SandboxIoServiceClient;
use wolfpack_proto::sandbox::v1::sandbox_service_client::SandboxServiceClient;
use wolfpack_proto::sandbox::v1::*;
use wolfpack_rpc::client::PeerConfig;
use wolfpack_rpc::from_status;
use wolfpack_runtime::Context;
use wolfpack_sandbox_manager::{App, Config};
use wolfpack_store::DatabaseConfig;
use wolfpack_types::Reason;

use crate::world::World;

/// How long anything may take that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A manager that runs.
pub(crate) struct Manager {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    runtime: Option<Runtime>,
    running: JoinHandle<()>,
    context: Context,
}

/// A configuration for a fleet and a database, with short times.
pub(crate) fn config(world: &World, database: &DatabaseConfig) -> Config {
    let peer = PeerConfig::at(format!("http://{}", world.address));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config {
        listen: any,
        metrics: Some(any),
        registry: peer.clone(),
        scheduler: peer.clone(),
        tunnel_broker: peer,
        database: database.clone(),
        ingress_url: Some("http://*.localhost:1".to_owned()),
        ..Config::default()
    };
    let reconcile = &mut config.reconcile;
    reconcile.lease = Duration::from_millis(900);
    reconcile.resync = Duration::from_millis(300);
    reconcile.place_again = Duration::from_millis(100);
    reconcile.tunnel_grace = Duration::from_millis(300);
    reconcile.orphan_grace = Duration::from_millis(300);
    reconcile.backoff = Duration::from_millis(500);
    config.reach.hedge = Duration::from_millis(400);
    config.reach.probe = Duration::from_secs(2);
    config.reach.bad_path = Duration::from_secs(2);
    config.watch.bookmark = Duration::from_millis(300);
    config
}

impl Manager {
    pub(crate) async fn start(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let context = Context::quiet("sandbox-manager");
        let theirs = context.clone();
        let (tell, told) = tokio::sync::oneshot::channel();
        let running = runtime.spawn(async move {
            let app = App::build(config, theirs).await.unwrap();
            tell.send(app.addresses()).unwrap();
            app.run().await.unwrap();
        });
        let addresses = told.await.expect("the manager must start");
        Self {
            address: addresses.grpc,
            metrics: addresses.metrics.unwrap(),
            runtime: Some(runtime),
            running,
            context,
        }
    }

    /// Stops as a crash does: nothing is finished, nothing is said.
    pub(crate) fn crash(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Stops in good order.
    pub(crate) async fn stop(mut self) {
        let (context, runtime) = (self.context.clone(), self.runtime.take().unwrap());
        let stopped = runtime.spawn(async move { context.supervisor.shutdown(SOON).await });
        let report = stopped.await.unwrap();
        // The last it does is to let go of its rows, after all its tasks ended.
        tokio::time::timeout(SOON, &mut self.running).await.expect("it must end").unwrap();
        assert!(report.aborted.is_empty() && report.stuck.is_empty(), "{report:?}");
        runtime.shutdown_background();
    }

    pub(crate) fn client(&self, key: &'static str) -> Client {
        let channel =
            Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy();
        let with_key = |channel| InterceptedService::new(channel, Key(key));
        Client {
            sandboxes: SandboxServiceClient::new(with_key(channel.clone())),
            io: SandboxIoServiceClient::new(with_key(channel.clone()))
                .max_decoding_message_size(16 << 20),
            desktop: DesktopServiceClient::new(with_key(channel.clone())),
            images: ImageServiceClient::new(with_key(channel.clone())),
            doctor: DoctorServiceClient::new(with_key(channel.clone())),
            ports: PortServiceClient::new(with_key(channel.clone())),
            containers: ContainerServiceClient::new(with_key(channel)),
        }
    }

    /// A developer of project `a`.
    pub(crate) fn owner(&self) -> Client {
        self.client("wp_a_developer")
    }

    /// What a scraper reads.
    pub(crate) async fn scrape(&self) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut io = tokio::net::TcpStream::connect(self.metrics).await.unwrap();
        io.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        io.read_to_string(&mut text).await.unwrap();
        text
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
pub(crate) struct Key(&'static str);

impl Interceptor for Key {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if !self.0.is_empty() {
            let value = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

type WithKey = InterceptedService<Channel, Key>;

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) sandboxes: SandboxServiceClient<WithKey>,
    pub(crate) io: SandboxIoServiceClient<WithKey>,
    pub(crate) desktop: DesktopServiceClient<WithKey>,
    pub(crate) images: ImageServiceClient<WithKey>,
    pub(crate) doctor: DoctorServiceClient<WithKey>,
    pub(crate) containers: ContainerServiceClient<WithKey>,
    pub(crate) ports: PortServiceClient<WithKey>,
}

pub(crate) fn create_request(display_name: &str) -> CreateSandboxRequest {
    CreateSandboxRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        sandbox: Some(Sandbox { display_name: display_name.to_owned(), ..Sandbox::default() }),
    }
}

pub(crate) fn reason(status: &Status) -> Reason {
    from_status(status).reason
}

pub(crate) fn state(sandbox: &Sandbox) -> SandboxState {
    sandbox.status.as_ref().unwrap().state()
}

impl Client {
    /// Creates one from a spec.
    pub(crate) async fn create_with(&mut self, spec: SandboxSpec) -> Result<Sandbox, Status> {
        let mut request = create_request("");
        request.sandbox.as_mut().unwrap().spec = Some(spec);
        let created = self.sandboxes.create_sandbox(request).await?;
        Ok(created.into_inner().sandbox.unwrap())
    }

    pub(crate) async fn create(&mut self, display_name: &str) -> Sandbox {
        let created = self.sandboxes.create_sandbox(create_request(display_name)).await.unwrap();
        let sandbox = created.into_inner().sandbox.unwrap();
        assert_eq!(state(&sandbox), SandboxState::Pending);
        sandbox
    }

    pub(crate) async fn get(&mut self, name: &str) -> Result<Sandbox, Status> {
        let request = GetSandboxRequest { name: name.to_owned() };
        Ok(self.sandboxes.get_sandbox(request).await?.into_inner().sandbox.unwrap())
    }

    pub(crate) async fn delete(&mut self, name: &str) -> Sandbox {
        let request = DeleteSandboxRequest { name: name.to_owned(), etag: String::new() };
        self.sandboxes.delete_sandbox(request).await.unwrap().into_inner().sandbox.unwrap()
    }

    /// Waits until the sandbox is as wanted; panics with what was seen last.
    pub(crate) async fn until(&mut self, name: &str, wanted: SandboxState) -> Sandbox {
        self.until_it(name, &format!("{wanted:?}"), |sandbox| state(sandbox) == wanted).await
    }

    pub(crate) async fn until_it(
        &mut self,
        name: &str,
        what: &str,
        is: impl Fn(&Sandbox) -> bool,
    ) -> Sandbox {
        let begin = tokio::time::Instant::now();
        let mut last = None;
        while begin.elapsed() < SOON {
            match self.get(name).await {
                Ok(sandbox) if is(&sandbox) => return sandbox,
                other => last = Some(other),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} is not {what}, but {last:#?}");
    }

    pub(crate) async fn running(&mut self, display_name: &str) -> Sandbox {
        let sandbox = self.create(display_name).await;
        self.until(&sandbox.name, SandboxState::Running).await
    }

    /// Deletes it and waits for its end.
    pub(crate) async fn end(&mut self, name: &str) {
        let deleting = self.delete(name).await;
        assert!(matches!(state(&deleting), SandboxState::Deleting | SandboxState::Deleted));
        self.until(name, SandboxState::Deleted).await;
    }
}

/// Waits until something holds; panics with `what` when it never does.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begin = tokio::time::Instant::now();
    while !holds() {
        assert!(begin.elapsed() < SOON, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until nothing is left in the fleet.
pub(crate) async fn nothing_left(world: &World) {
    let begin = tokio::time::Instant::now();
    loop {
        let leaks = world.leaks();
        if leaks.is_empty() {
            return;
        }
        assert!(begin.elapsed() < SOON, "left in the fleet: {leaks:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

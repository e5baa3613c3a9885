//! A scheduler as a whole, beside a fake registry, over mutual TLS.

mod ca;
mod registry;

use std::net::SocketAddr;
use std::time::Duration;

use wolfpack_proto::registry::v1::{Wolf, WolfCapacity, WolfState};
use wolfpack_proto::scheduler::v1::scheduler_service_client::SchedulerServiceClient;
use wolfpack_proto::scheduler::v1::{PlaceRequest, Reservation, Shape};
use wolfpack_proto::types::v1::{GpuDevice, GpuRequest, Resources};
use wolfpack_rpc::client::{PeerConfig, RpcChannel};
use wolfpack_rpc::error::from_status;
use wolfpack_runtime::Context;
use wolfpack_scheduler::{App, Config};
use wolfpack_store::DatabaseConfig;
use wolfpack_types::{Fault, Reason, ReservationId};

pub use ca::TestCa;
pub use registry::FakeRegistry;

pub type Client = SchedulerServiceClient<RpcChannel>;

/// One scheduler that runs.
pub struct Running {
    context: Context,
    pub client: Client,
    pub address: SocketAddr,
}

impl Running {
    /// Stops it as a signal would.
    pub async fn stop(self) {
        let report = self.context.supervisor.shutdown(Duration::from_secs(10)).await;
        assert_eq!(report.aborted, Vec::<&str>::new());
    }

    /// Ends it as `kill -9` would, as far as one process can: nothing is
    /// drained, nothing is given up.
    pub async fn kill(self) {
        self.context.supervisor.shutdown(Duration::ZERO).await;
    }
}

/// A test's world.
pub struct Rig {
    pub ca: TestCa,
    pub registry: FakeRegistry,
    registry_context: Context,
    pub registry_address: SocketAddr,
}

pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl Rig {
    pub async fn new() -> Self {
        let ca = TestCa::new();
        let registry = FakeRegistry::new();
        let registry_context = Context::quiet("registry");
        let registry_address = registry.serve(&ca, &registry_context, any_port()).await;
        Self { ca, registry, registry_context, registry_address }
    }

    pub fn config(&self, database: &DatabaseConfig) -> Config {
        Config {
            listen: any_port(),
            tls: Some(self.ca.service("scheduler")),
            registry: PeerConfig::at(format!("https://{}", self.registry_address)),
            database: database.clone(),
            drain: Duration::from_secs(2),
            ..Config::default()
        }
    }

    /// Starts a scheduler, and does not wait until it leads.
    pub async fn start(&self, config: Config) -> Running {
        let context = Context::quiet("scheduler");
        let app = App::build(config, context.clone()).await.unwrap();
        let address = app.addresses().listen;
        context.supervisor.spawn_essential("scheduler", app.run());
        let client = self.client("sandbox-manager", address);
        Running { context, client, address }
    }

    pub fn client(&self, service: &str, address: SocketAddr) -> Client {
        let peer = PeerConfig::at(format!("https://{address}"));
        let tls = self.ca.client(service);
        Client::new(RpcChannel::to_service(&peer, "scheduler", Some(&tls)).unwrap())
    }

    pub async fn stop_registry(&self) {
        self.registry_context.supervisor.shutdown(Duration::from_secs(5)).await;
    }
}

pub fn wolf(id: &str, cpu_milli: u32, gpus: usize) -> Wolf {
    Wolf {
        name: format!("wolves/{id}"),
        display_name: id.to_owned(),
        state: WolfState::Online.into(),
        tunnel_attached: true,
        capacity: Some(WolfCapacity {
            resources: Some(Resources {
                cpu_milli: Some(cpu_milli),
                memory_bytes: Some(64 << 30),
                ..Resources::default()
            }),
            gpus: (0..gpus)
                .map(|gpu| GpuDevice { id: format!("{id}-gpu-{gpu}"), ..GpuDevice::default() })
                .collect(),
            desktop_slots: 4,
            ..WolfCapacity::default()
        }),
        ..Wolf::default()
    }
}

pub fn shape(cpu_milli: u32, gpus: u32) -> Shape {
    Shape {
        resources: Some(Resources { cpu_milli: Some(cpu_milli), ..Resources::default() }),
        gpu: (gpus > 0).then(|| GpuRequest { count: gpus, ..GpuRequest::default() }),
        ..Shape::default()
    }
}

pub fn place_request(shape: Shape) -> PlaceRequest {
    PlaceRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        sandbox: "sandboxes/s".into(),
        project: "projects/p".into(),
        shape: Some(shape),
        excluded_wolves: Vec::new(),
    }
}

pub async fn try_place(client: &Client, request: PlaceRequest) -> Result<Reservation, Fault> {
    client
        .clone()
        .place(request)
        .await
        .map(|answer| answer.into_inner().reservation.unwrap())
        .map_err(|status| from_status(&status))
}

/// Places as the manager does: what may pass by itself is tried again.
pub async fn place(client: &Client, request: PlaceRequest) -> Result<Reservation, Fault> {
    let begin = tokio::time::Instant::now();
    loop {
        match try_place(client, request.clone()).await {
            Err(fault)
                if matches!(
                    fault.reason,
                    Reason::DependencyUnavailable | Reason::SchedulerNotLeader
                ) && begin.elapsed() < Duration::from_secs(20) =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

pub async fn confirm(client: &Client, name: &str) -> Result<Reservation, Fault> {
    let request =
        wolfpack_proto::scheduler::v1::ConfirmReservationRequest { name: name.to_owned() };
    client
        .clone()
        .confirm_reservation(request)
        .await
        .map(|answer| answer.into_inner().reservation.unwrap())
        .map_err(|status| from_status(&status))
}

pub async fn release(client: &Client, name: &str, outcome: i32) -> Result<Reservation, Fault> {
    let request =
        wolfpack_proto::scheduler::v1::ReleaseReservationRequest { name: name.to_owned(), outcome };
    client
        .clone()
        .release_reservation(request)
        .await
        .map(|answer| answer.into_inner().reservation.unwrap())
        .map_err(|status| from_status(&status))
}

pub fn unknown_reservation() -> String {
    ReservationId::new().name()
}

//! The service over the real client and a fake engine with scripted faults.

mod belongings;
mod disk;
mod life;
mod streams;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prost::Message as _;
use serde_json::json;
use wolfpack_proto::agent::v1::create_sandbox_response::Step;
use wolfpack_proto::agent::v1::watch_sandboxes_response::Event;
use wolfpack_proto::agent::v1::{ContainerState, ContainerStatus};
use wolfpack_proto::sandbox::v1::SandboxSpec;
use wolfpack_proto::scheduler::v1::{Reservation, ReservationState};
use wolfpack_proto::types::v1::Resources;
use wolfpack_rpc::from_status;
use wolfpack_runtime::Context;
use wolfpack_tunnel::TargetDialer as _;
use wolfpack_types::capacity::Capacity;
use wolfpack_types::{Reason, SandboxBoot, Target as TunnelTarget, WolfId};

use super::*;
use crate::admission::{Admission, EpochFile};
use crate::bridge::{BridgeParts, Bridges};
use crate::config::{DockerConfig, HostPort, MountsConfig};
use crate::engine::fake::{Call, FakeContainer, FakeEngine, Fault};
use crate::engine::{DockerEngine, Engine, hardening};
use crate::lifecycle::{Parts, RelayPorts, Settings};
use crate::metrics::Metrics;
use crate::mounts::Stage;
use crate::relay::Target;
use crate::setup::Setup;

const WAIT: Duration = Duration::from_secs(20);

/// One process of an agent over a fake engine that outlives it.
struct Wolf {
    context: Context,
    lifecycle: Lifecycle,
    setup: Arc<Setup>,
    runtime: Runtime,
}

struct Host {
    dir: tempfile::TempDir,
    engine_context: Context,
    fake: FakeEngine,
    wolf: WolfId,
    /// Whether the wolf's engine is shared.
    shared: bool,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine_context = Context::quiet("engine");
        let socket = dir.path().join("docker.sock");
        let fake = FakeEngine::start(&socket, &engine_context.supervisor).unwrap();
        Self { dir, engine_context, fake, wolf: WolfId::new(), shared: false }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("sandboxes")
    }

    async fn start(&self) -> Wolf {
        let wolf = self.begin();
        until("ready", || wolf.lifecycle.ready_now().is_some()).await;
        wolf
    }

    /// A process of the agent whose engine is not set up yet.
    fn begin(&self) -> Wolf {
        let context = Context::quiet("wolf");
        let supervisor = context.supervisor.clone();
        let metrics = Metrics::new(&context.telemetry.meter());
        let capacity = Capacity {
            cpu_milli: Some(4_000),
            memory_bytes: Some(4 << 30),
            disk_bytes: Some(1 << 40),
            desktop_slots: 1,
            ..Capacity::default()
        };
        let epoch_file = EpochFile::in_dir(self.dir.path());
        let epoch = epoch_file.read().unwrap();
        let engine: Arc<dyn Engine> = Arc::new(DockerEngine::new(self.fake.socket()));
        let target = |name| Target {
            name,
            address: Arc::new(ArcSwap::from_pointee(HostPort {
                host: "127.0.0.1".into(),
                port: 1,
            })),
        };
        let bridges = Arc::new(Bridges::new(BridgeParts {
            engine: engine.clone(),
            wolf: self.wolf.clone(),
            network: "wolfpack-test".into(),
            data_dir: self.dir.path().to_owned(),
            wanted: RelayPorts { gateway: 0, broker: 0 },
            gateway: target("gateway"),
            broker: target("broker"),
            open_ports: Vec::new(),
            supervisor: supervisor.clone(),
            metrics: metrics.clone(),
        }));
        let lifecycle = Lifecycle::new(Parts {
            engine,
            settings: Settings {
                wolf: self.wolf.clone(),
                root: self.root(),
                bin_dir: "/opt/wolfpack/bin".into(),
                gpus: crate::inventory::Gpus::new(crate::inventory::Sources::host()),
                otlp_endpoint: None,
                tcp_ports: wolfpack_types::PortSet::all(),
                uid: 0,
                docker: DockerConfig { shared: self.shared, depth: 2 },
                mounts: MountsConfig {
                    allow: vec![self.dir.path().join("allowed")],
                    ..MountsConfig::default()
                },
                stage: Stage::in_dir(self.dir.path()),
            },
            bridges: bridges.clone(),
            socket: self.fake.socket().to_owned(),
            trust_roots: Arc::new(|| "roots".to_owned()),
            admission: Admission::new(self.wolf.clone(), capacity, epoch),
            epoch: (epoch_file, epoch),
            supervisor: supervisor.clone(),
            metrics,
        });
        let setup = Arc::new(Setup {
            lifecycle: lifecycle.clone(),
            bridges,
            data_dir: self.dir.path().to_owned(),
            socket: self.fake.socket().to_owned(),
            supervisor: supervisor.clone(),
        });
        let set_up = setup.clone();
        supervisor.spawn_restarting("setup", move || {
            let setup = set_up.clone();
            async move { setup.run().await }
        });
        let observer = lifecycle.observer().clone();
        let events_stop = supervisor.token();
        supervisor.spawn_restarting("events", move || {
            let (observer, stop) = (observer.clone(), events_stop.clone());
            async move { Ok(observer.follow(&stop).await?) }
        });
        Wolf { context, runtime: Runtime::new(lifecycle.clone()), lifecycle, setup }
    }

    fn request(&self, sandbox: &str, execution: &str) -> CreateSandboxRequest {
        CreateSandboxRequest {
            sandbox: format!("sandboxes/{sandbox}"),
            project: "projects/p1".into(),
            execution_id: execution.into(),
            owner_epoch: 1,
            spec: Some(SandboxSpec {
                image: "debian:bookworm-slim".into(),
                ..SandboxSpec::default()
            }),
            reservation: Some(Reservation {
                name: format!("reservations/r-{sandbox}-{execution}"),
                state: ReservationState::Reserved.into(),
                sandbox: format!("sandboxes/{sandbox}"),
                project: "projects/p1".into(),
                wolf: self.wolf.name(),
                resources: Some(Resources {
                    cpu_milli: Some(1_000),
                    memory_bytes: Some(1 << 30),
                    disk_bytes: None,
                    pids: Some(100),
                }),
                expire_time: Some((SystemTime::now() + Duration::from_secs(30)).into()),
                epoch: 3,
                ..Reservation::default()
            }),
            sandbox_token: "the-token".into(),
        }
    }

    fn container(&self, sandbox: &str) -> Option<FakeContainer> {
        let all = self.fake.containers();
        all.into_iter().find(|found| found.label("wolfpack.sandbox") == Some(sandbox))
    }

    /// Nothing of a sandbox is left, on the engine, on disk, in the ledger.
    fn assert_nothing_left(&self, wolf: &Wolf) {
        assert!(self.fake.containers().is_empty(), "{:?}", self.fake.containers());
        let left: Vec<_> = std::fs::read_dir(self.root()).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(wolf.lifecycle.holding(), 0);
    }
}

impl Wolf {
    /// All steps of a create; the end is a container or a reason.
    async fn create(
        &self,
        request: CreateSandboxRequest,
    ) -> (Vec<Step>, Result<ContainerStatus, wolfpack_types::Fault>) {
        let mut steps = match self.runtime.create_sandbox(Request::new(request)).await {
            Ok(steps) => steps.into_inner(),
            Err(status) => return (Vec::new(), Err(from_status(&status))),
        };
        let mut seen = Vec::new();
        while let Some(step) = tokio::time::timeout(WAIT, steps.next()).await.unwrap() {
            match step.map(|step| step.step.unwrap()) {
                Ok(Step::Started(container)) => {
                    assert!(steps.next().await.is_none(), "nothing follows started");
                    return (seen, Ok(container));
                }
                Ok(step) => seen.push(step),
                Err(status) => return (seen, Err(from_status(&status))),
            }
        }
        panic!("the steps ended without an outcome: {seen:?}");
    }

    async fn remove(&self, sandbox: &str, execution: &str, owner_epoch: i64) -> Result<(), Reason> {
        let request = RemoveSandboxRequest {
            sandbox: format!("sandboxes/{sandbox}"),
            execution_id: execution.into(),
            owner_epoch,
        };
        let removed = self.runtime.remove_sandbox(Request::new(request)).await;
        removed.map(|_| ()).map_err(|status| from_status(&status).reason)
    }

    async fn list(&self) -> Vec<ContainerStatus> {
        let listed = self.runtime.list_sandboxes(Request::new(ListSandboxesRequest {})).await;
        listed.unwrap().into_inner().containers
    }

    async fn stop(self) {
        let report = self.context.supervisor.shutdown(WAIT).await;
        assert_eq!(report, wolfpack_runtime::ShutdownReport::default());
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WAIT, "it did not come to be: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

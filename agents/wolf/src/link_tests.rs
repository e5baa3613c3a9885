//! The line to a registry of which every answer is scripted.

use std::net::SocketAddr;

use futures::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::registry::v1::wolf_service_server::{WolfService, WolfServiceServer};
use wolfpack_proto::registry::v1::{
    GetWolfRequest, GetWolfResponse, ListWolvesRequest, ListWolvesResponse, RegisterWolfResponse,
    WatchWolvesRequest, WatchWolvesResponse, WolfImage,
};
use wolfpack_proto::types::v1::TelemetryState;
use wolfpack_rpc::{
    Allow, ByteBudget, ListenConfig, PeerConfig, PolicyRow, Profile, RpcKind, Server, to_status,
};
use wolfpack_runtime::Context;
use wolfpack_types::WolfId;
use wolfpack_types::capacity::Capacity;

use super::*;
use crate::admission::{Admission, EpochFile};
use crate::bridge::{BridgeParts, Bridges};
use crate::config::{DockerConfig, HostPort, MountsConfig};
use crate::engine::fake::{Call, FakeEngine, Fault as EngineFault};
use crate::engine::{DockerEngine, Engine, Network};
use crate::inventory::gpu::fixtures::{Host, told as gpu};
use crate::lifecycle::{Parts, Quota, Ready, RelayPorts, Settings};
use crate::metrics::Metrics;
use crate::mounts::Stage;
use crate::relay::Target;

const WAIT: Duration = Duration::from_secs(20);
const POLICY: &[PolicyRow] = &[
    PolicyRow {
        method: "/wolfpack.registry.v1.WolfService/RegisterWolf",
        allow: Allow::ANYONE,
        kind: RpcKind::Unary,
    },
    PolicyRow {
        method: "/wolfpack.registry.v1.WolfService/Heartbeat",
        allow: Allow::ANYONE,
        kind: RpcKind::Stream,
    },
];

/// What came, in order.
#[derive(Debug)]
enum Came {
    Register(RegisterWolfRequest),
    Beat(HeartbeatRequest),
}

/// How a stream of heartbeats is answered.
#[derive(Debug, Clone, Copy)]
enum Script {
    /// So many answers, then this end.
    Then(u64, Reason),
    /// Answers until the client goes.
    Always,
}

struct Registry {
    came: mpsc::Sender<Came>,
    scripts: Mutex<Vec<Script>>,
}

#[tonic::async_trait]
impl WolfService for Registry {
    type HeartbeatStream = BoxStream<'static, Result<HeartbeatResponse, Status>>;
    type WatchWolvesStream = BoxStream<'static, Result<WatchWolvesResponse, Status>>;

    async fn register_wolf(
        &self,
        request: Request<RegisterWolfRequest>,
    ) -> Result<Response<RegisterWolfResponse>, Status> {
        wolfpack_rpc::check(request.get_ref())?;
        self.came.send(Came::Register(request.into_inner())).await.unwrap();
        let heartbeat_interval = Some(Duration::from_millis(200).try_into().unwrap());
        Ok(Response::new(RegisterWolfResponse { wolf: None, heartbeat_interval }))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let script = self.scripts.lock().pop().unwrap_or(Script::Always);
        let came = self.came.clone();
        let answers = request.into_inner().then(move |beat| {
            let came = came.clone();
            async move {
                let beat = beat?;
                wolfpack_rpc::check(&beat)?;
                let sequence = beat.sequence;
                came.send(Came::Beat(beat)).await.unwrap();
                match script {
                    Script::Then(answers, reason) if sequence >= answers => {
                        Err(to_status(Fault::new(reason, "scripted")))
                    }
                    _ => Ok(HeartbeatResponse {
                        sequence,
                        interval: None,
                        state: WolfState::Online.into(),
                    }),
                }
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn get_wolf(
        &self,
        _: Request<GetWolfRequest>,
    ) -> Result<Response<GetWolfResponse>, Status> {
        Err(Status::permission_denied("not for wolves"))
    }

    async fn list_wolves(
        &self,
        _: Request<ListWolvesRequest>,
    ) -> Result<Response<ListWolvesResponse>, Status> {
        Err(Status::permission_denied("not for wolves"))
    }

    async fn watch_wolves(
        &self,
        _: Request<WatchWolvesRequest>,
    ) -> Result<Response<Self::WatchWolvesStream>, Status> {
        Err(Status::permission_denied("not for wolves"))
    }
}

struct Line {
    context: Context,
    came: mpsc::Receiver<Came>,
    fake: FakeEngine,
    engine: Arc<dyn Engine>,
    lifecycle: Lifecycle,
    cached: watch::Sender<Arc<WolfImages>>,
    pressure: watch::Sender<String>,
    _dir: tempfile::TempDir,
}

impl Line {
    async fn new(scripts: Vec<Script>) -> Self {
        Self::with(scripts, Sources::host()).await
    }

    async fn with(mut scripts: Vec<Script>, sources: Sources) -> Self {
        scripts.reverse();
        let context = Context::quiet("wolf");
        let (sender, came) = mpsc::channel(64);
        let registry = Registry { came: sender, scripts: Mutex::new(scripts) };
        let listener =
            ListenConfig::plain(SocketAddr::from(([127, 0, 0, 1], 0))).bind().await.unwrap();
        let address = listener.local_addr();
        let server = Server::builder(&context, POLICY, Arc::new(crate::runtime::NoBearers))
            .add_service(WolfServiceServer::new(registry))
            .listen(listener, Profile::internal())
            .build();
        context.supervisor.spawn_essential("registry", server.serve());

        let dir = tempfile::tempdir().unwrap();
        let fake = FakeEngine::start(&dir.path().join("docker.sock"), &context.supervisor).unwrap();
        let engine: Arc<dyn Engine> = Arc::new(DockerEngine::new(fake.socket()));
        let wolf = WolfId::new();
        let nowhere = |name| Target {
            name,
            address: Arc::new(arc_swap::ArcSwap::from_pointee(HostPort {
                host: "127.0.0.1".into(),
                port: 1,
            })),
        };
        let bridges = Arc::new(Bridges::new(BridgeParts {
            engine: engine.clone(),
            wolf: wolf.clone(),
            network: "n".into(),
            data_dir: dir.path().to_owned(),
            wanted: RelayPorts { gateway: 1, broker: 2 },
            gateway: nowhere("gateway"),
            broker: nowhere("broker"),
            open_ports: Vec::new(),
            supervisor: context.supervisor.clone(),
            metrics: Metrics::new(&context.telemetry.meter()),
        }));
        let lifecycle = Lifecycle::new(Parts {
            engine: engine.clone(),
            settings: Settings {
                wolf: wolf.clone(),
                root: dir.path().join("sandboxes"),
                bin_dir: "/opt".into(),
                gpus: crate::inventory::Gpus::new(crate::inventory::Sources::host()),
                otlp_endpoint: None,
                tcp_ports: wolfpack_types::PortSet::all(),
                uid: 0,
                docker: DockerConfig::default(),
                mounts: MountsConfig::default(),
                stage: Stage::in_dir(dir.path()),
            },
            bridges,
            socket: fake.socket().to_owned(),
            trust_roots: Arc::new(String::new),
            admission: Admission::new(wolf, Capacity::default(), 0),
            epoch: (EpochFile::in_dir(dir.path()), 0),
            supervisor: context.supervisor.clone(),
            metrics: Metrics::new(&context.telemetry.meter()),
        });
        let (health, health_seen) = watch::channel(EngineHealth::default());
        let every = Duration::from_millis(200);
        let probing = crate::probe::run(engine.clone(), every, health, context.supervisor.token());
        context.supervisor.spawn("probe", probing);
        let peer = PeerConfig::at(format!("http://{address}"));
        let config = Config {
            capacity: CapacityConfig { cpu_milli: Some(1_234), ..CapacityConfig::default() },
            mounts: MountsConfig { allow: vec!["/srv/a".into()], every_project: true },
            ..Config::default()
        };
        let (cached, cached_seen) = watch::channel(Arc::<WolfImages>::default());
        let (pressure, pressure_seen) = watch::channel(String::new());
        let seen = (cached_seen, pressure_seen);
        let link = Link {
            broker: RpcChannel::for_tunnel(&peer, "tunnel-broker", None, &ByteBudget::default())
                .unwrap(),
            instance: InstanceId::parse("i1").unwrap(),
            lifecycle: lifecycle.clone(),
            health: health_seen,
            inventory: InventorySource::with(&config, sources),
            images: ImageNews { cached: seen.0, disk_pressure: seen.1 },
            display_name: "a wolf".into(),
            labels: std::collections::BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            supervisor: context.supervisor.clone(),
        };
        context.supervisor.spawn("link", link.run());
        Self { context, came, fake, engine, lifecycle, cached, pressure, _dir: dir }
    }

    async fn next(&mut self) -> Came {
        tokio::time::timeout(WAIT, self.came.recv()).await.expect("nothing came").unwrap()
    }

    async fn registered(&mut self) -> RegisterWolfRequest {
        loop {
            if let Came::Register(request) = self.next().await {
                return request;
            }
        }
    }

    async fn beat(&mut self) -> HeartbeatRequest {
        match self.next().await {
            Came::Beat(beat) => beat,
            other @ Came::Register(_) => panic!("{other:?}"),
        }
    }

    async fn stop(self) {
        drop(self.came);
        let report = self.context.supervisor.shutdown(WAIT).await;
        assert_eq!(report, wolfpack_runtime::ShutdownReport::default());
    }
}

#[tokio::test]
async fn a_wolf_registers_and_beats_in_order() {
    let mut line = Line::new(vec![]).await;
    let told = line.registered().await;
    assert_eq!((told.display_name.as_str(), told.instance_id.as_str()), ("a wolf", "i1"));
    assert_eq!(told.labels["zone"], "a");
    let capacity = told.capacity.unwrap();
    assert_eq!(capacity.resources.unwrap().cpu_milli, Some(1_234));
    assert!(capacity.mounts_every_project);
    assert_eq!(told.engine, None, "the engine was not set up yet");
    for sequence in 0..3 {
        let beat = line.beat().await;
        assert_eq!((beat.sequence, beat.instance_id.as_str()), (sequence, "i1"));
        assert_eq!((beat.running_sandboxes, beat.engine_fault.as_str()), (Some(0), ""));
        assert!(beat.used.unwrap().memory_bytes.is_some());
    }
    // What is true of the engine is told once it is known.
    let engine = line.engine.info().await.unwrap();
    let network =
        Network { name: "n".into(), gateway: std::net::Ipv4Addr::LOCALHOST, bridge: "br-n".into() };
    line.lifecycle.set_ready(Ready {
        engine,
        network,
        ports: RelayPorts { gateway: 1, broker: 2 },
        stage: false,
        quota: Quota::default(),
    });
    let told = line.registered().await.engine.unwrap();
    assert_eq!((told.storage_driver.as_str(), told.cgroup_version), ("overlay2", 1));
    assert_eq!(line.beat().await.sequence, 0, "a new stream counts from zero");
    line.stop().await;
}

#[tokio::test]
async fn a_registry_that_does_not_know_the_wolf_is_told_again() {
    let mut line = Line::new(vec![
        Script::Then(1, Reason::WolfNotFound),
        Script::Then(0, Reason::DependencyUnavailable),
    ])
    .await;
    for beats in [2, 1, 3] {
        line.registered().await;
        for sequence in 0..beats {
            assert_eq!(line.beat().await.sequence, sequence);
        }
    }
    line.stop().await;
}

#[tokio::test]
async fn an_engine_that_fails_is_told_and_what_it_runs_is_unknown() {
    let mut line = Line::new(vec![]).await;
    line.registered().await;
    assert_eq!(line.beat().await.running_sandboxes, Some(0));
    for _ in 0..3 {
        line.fake.script(Call::Info, EngineFault::Status(500, "out of order"));
    }
    let told = loop {
        let beat = line.beat().await;
        if !beat.engine_fault.is_empty() {
            break beat;
        }
    };
    assert!(told.engine_fault.contains("out of order"), "{}", told.engine_fault);
    assert_eq!(told.running_sandboxes, None, "absent, not zero");
    loop {
        if line.beat().await.engine_fault.is_empty() {
            break;
        }
    }
    line.stop().await;
}

#[tokio::test]
async fn gpus_are_told_with_what_fails_of_them() {
    let host = Host::new().nvidia("0000:01:00.0", "GPU-a", "NVIDIA L4");
    host.says(Ok(vec![gpu("GPU-a", "NVIDIA L4", "0000:01:00.0", 0)]));
    let mut line = Line::with(vec![], host.sources()).await;
    let told = line.registered().await.capacity.unwrap();
    assert_eq!((told.gpus.len(), told.gpus[0].id.as_str()), (1, "GPU-a"));
    assert!(told.gpus[0].encoder_sessions > Some(0));
    let beat = line.beat().await;
    assert_eq!(beat.gpus[0].state(), TelemetryState::Ok);
    assert_eq!(beat.gpus[0].utilisation_percent, Some(3));
    host.says(Err("it died"));
    let failed = loop {
        let beat = line.beat().await;
        if beat.gpus[0].state() == TelemetryState::Failed {
            break beat;
        }
    };
    assert_eq!(failed.gpus[0].utilisation_percent, None, "absent, not zero");
    let free = || line.lifecycle.free().gpu_milli;
    assert_eq!(free(), 0, "the wolf's own guard refuses it too");
    // Another device is another wolf: it registers again.
    host.says(Ok(vec![
        gpu("GPU-a", "NVIDIA L4", "0000:01:00.0", 0),
        gpu("GPU-b", "NVIDIA L4", "0000:02:00.0", 1),
    ]));
    assert_eq!(line.registered().await.capacity.unwrap().gpus.len(), 2);
    assert_eq!(line.lifecycle.free().gpu_milli, 2_000);
    line.stop().await;
}

#[tokio::test]
async fn images_go_with_a_beat_when_they_are_others_and_want_of_disk_at_once() {
    let mut line = Line::new(vec![]).await;
    line.registered().await;
    assert_eq!(line.beat().await.images, Some(WolfImages::default()), "the first says it all");
    assert_eq!(line.beat().await.images, None);
    let images =
        WolfImages { images: vec![WolfImage { id: "sha256:1".into(), ..WolfImage::default() }] };
    line.cached.send_replace(Arc::new(images.clone()));
    line.pressure.send_replace("2 % of the disk is free".to_owned());
    let mut told = None;
    let short = loop {
        let beat = line.beat().await;
        told = beat.images.or(told);
        if !beat.disk_pressure.is_empty() {
            break beat.disk_pressure;
        }
    };
    assert_eq!((short.as_str(), told), ("2 % of the disk is free", Some(images)));
    line.pressure.send_replace(String::new());
    while !line.beat().await.disk_pressure.is_empty() {}
    line.stop().await;
}

#[test]
fn a_fault_is_cut_between_characters() {
    let text = "ü".repeat(FAULT_LEN);
    assert!(cut(&text).len() <= FAULT_LEN);
    assert_eq!(cut("short"), "short");
}

#[test]
fn an_interval_of_the_registry_stays_within_bounds() {
    let told = |seconds| interval(Some(prost_types::Duration { seconds, nanos: 0 }));
    assert_eq!(told(10), Some(Duration::from_secs(10)));
    assert_eq!(told(0), Some(INTERVALS.0));
    assert_eq!(told(100_000), Some(INTERVALS.1));
    assert_eq!(told(-5), None);
    assert_eq!(interval(None), None);
}

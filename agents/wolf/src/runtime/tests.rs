//! The service over the real client and a fake engine with scripted faults.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
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
use crate::config::HostPort;
use crate::engine::fake::{Call, FakeContainer, FakeEngine, Fault};
use crate::engine::{DockerEngine, hardening};
use crate::lifecycle::{Parts, RelayPorts, Settings};
use crate::metrics::Metrics;
use crate::relay::Target;
use crate::setup::Setup;

const WAIT: Duration = Duration::from_secs(20);

/// One process of an agent over a fake engine that outlives it.
struct Wolf {
    context: Context,
    lifecycle: Lifecycle,
    runtime: Runtime,
}

struct Host {
    dir: tempfile::TempDir,
    engine_context: Context,
    fake: FakeEngine,
    wolf: WolfId,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine_context = Context::quiet("engine");
        let socket = dir.path().join("docker.sock");
        let fake = FakeEngine::start(&socket, &engine_context.supervisor).unwrap();
        Self { dir, engine_context, fake, wolf: WolfId::new() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("sandboxes")
    }

    async fn start(&self) -> Wolf {
        let context = Context::quiet("wolf");
        let supervisor = context.supervisor.clone();
        let metrics = Metrics::new(&context.telemetry.meter());
        let capacity = Capacity {
            cpu_milli: Some(4_000),
            memory_bytes: Some(4 << 30),
            disk_bytes: Some(1 << 40),
            desktop_slots: 1,
            devices: Vec::new(),
        };
        let epoch_file = EpochFile::in_dir(self.dir.path());
        let epoch = epoch_file.read().unwrap();
        let lifecycle = Lifecycle::new(Parts {
            engine: Arc::new(DockerEngine::new(self.fake.socket())),
            settings: Settings {
                wolf: self.wolf.clone(),
                root: self.root(),
                bin_dir: "/opt/wolfpack/bin".into(),
                gpus: Vec::new(),
                otlp_endpoint: None,
                uid: 0,
            },
            trust_roots: Arc::new(|| "roots".to_owned()),
            admission: Admission::new(self.wolf.clone(), capacity, epoch),
            epoch: (epoch_file, epoch),
            supervisor: supervisor.clone(),
            metrics: metrics.clone(),
        });
        let target = |name| Target {
            name,
            address: Arc::new(ArcSwap::from_pointee(HostPort {
                host: "127.0.0.1".into(),
                port: 1,
            })),
        };
        let setup = Arc::new(Setup {
            lifecycle: lifecycle.clone(),
            wolf: self.wolf.clone(),
            network: "wolfpack-test".into(),
            data_dir: self.dir.path().to_owned(),
            wanted: RelayPorts { gateway: 0, broker: 0 },
            gateway: target("gateway"),
            broker: target("broker"),
            supervisor: supervisor.clone(),
            metrics,
            relay: Mutex::new(None),
        });
        supervisor.spawn_restarting("setup", move || {
            let setup = setup.clone();
            async move { setup.run().await }
        });
        let observer = lifecycle.observer().clone();
        let events_stop = supervisor.token();
        supervisor.spawn_restarting("events", move || {
            let (observer, stop) = (observer.clone(), events_stop.clone());
            async move { Ok(observer.follow(&stop).await?) }
        });
        let wolf = Wolf { context, runtime: Runtime::new(lifecycle.clone()), lifecycle };
        until("ready", || wolf.lifecycle.ready_now().is_some()).await;
        wolf
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

#[tokio::test]
async fn a_sandbox_is_created_hardened_and_told_who_it_is() {
    let host = Host::new();
    let wolf = host.start().await;
    host.fake.add_image(
        "debian:bookworm-slim",
        json!({"Entrypoint": ["/entry"], "Cmd": ["serve"], "User": "1000:1000",
               "WorkingDir": "/srv", "Env": ["PATH=/bin", "A=image"]}),
    );
    let mut request = host.request("s1", "e1");
    request.spec.as_mut().unwrap().env.insert("A".into(), "user".into());
    let (steps, started) = wolf.create(request).await;
    assert!(matches!(steps[..], [Step::Admitted(_)]), "{steps:?}");
    let started = started.unwrap();
    assert_eq!(started.state(), ContainerState::Running);
    assert_eq!((started.sandbox.as_str(), started.execution_id.as_str()), ("sandboxes/s1", "e1"));
    assert!(started.start_time.is_some());

    let made = host.container("s1").unwrap();
    assert_eq!(made.id, started.container_id);
    assert_eq!(hardening::violations(&made.request["HostConfig"]), Vec::<String>::new());
    assert_eq!(made.request["HostConfig"]["Memory"], 1 << 30);
    assert_eq!(made.request["HostConfig"]["NanoCpus"], 1_000_000_000);
    assert_eq!(made.request["HostConfig"]["ExtraHosts"], json!(["wolfpack.internal:127.0.0.1"]));
    assert!(!made.request.to_string().contains("the-token"), "a token is not in the request");

    let dir = made.mounted("/run/wolfpack").unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("token")).unwrap(), "the-token");
    assert_eq!(mode(&dir.join("token")), 0o600);
    assert_eq!(std::fs::read_to_string(dir.join("ca.crt")).unwrap(), "roots");
    let told: SandboxBoot =
        serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(told.argv, ["/entry", "serve"]);
    assert_eq!((told.user.as_str(), told.cwd.as_str()), ("1000:1000", "/srv"));
    assert_eq!((told.env["A"].as_str(), told.env["PATH"].as_str()), ("user", "/bin"));
    let ports = wolf.lifecycle.ready_now().unwrap().ports;
    assert_eq!(told.broker, format!("https://wolfpack.internal:{}", ports.broker));
    assert_eq!(told.gateway, format!("https://wolfpack.internal:{}", ports.gateway));

    wolf.remove("s1", "", 1).await.unwrap();
    host.assert_nothing_left(&wolf);
    wolf.remove("s1", "", 1).await.unwrap();
    wolf.stop().await;
}

#[tokio::test]
async fn repeated_and_parallel_calls_of_one_boot_make_one_container() {
    let host = Host::new();
    let wolf = host.start().await;
    host.fake.script(Call::Create, Fault::Slow(Duration::from_millis(200)));
    let all =
        futures::future::join_all((0..8).map(|_| wolf.create(host.request("s1", "e1")))).await;
    let ids: BTreeSet<String> = all.into_iter().map(|(_, end)| end.unwrap().container_id).collect();
    assert_eq!(ids.len(), 1);
    let (_, again) = wolf.create(host.request("s1", "e1")).await;
    assert_eq!(again.unwrap().container_id, *ids.first().unwrap());
    assert_eq!((host.fake.calls(Call::Create), host.fake.calls(Call::Start)), (1, 1));
    assert_eq!(wolf.lifecycle.holding(), 1);
    host.fake.exit("s1", 0, false);
    host.fake.exit(&host.container("s1").unwrap().id, 3, false);
    let (_, ended) = wolf.create(host.request("s1", "e1")).await;
    let ended = ended.unwrap();
    assert_eq!((ended.state(), ended.exit_code), (ContainerState::Exited, Some(3)));
    wolf.stop().await;
}

#[tokio::test]
async fn a_refused_reservation_begins_nothing() {
    let host = Host::new();
    let wolf = host.start().await;
    let refused = |change: fn(&mut Reservation)| {
        let mut request = host.request("s1", "e1");
        change(request.reservation.as_mut().unwrap());
        wolf.create(request)
    };
    let expired: fn(&mut Reservation) = |reservation| {
        reservation.expire_time = Some((SystemTime::now() - Duration::from_secs(1)).into());
    };
    let elsewhere: fn(&mut Reservation) = |reservation| reservation.wolf = "wolves/other".into();
    let greedy: fn(&mut Reservation) =
        |reservation| reservation.resources.as_mut().unwrap().cpu_milli = Some(4_001);
    let gpu: fn(&mut Reservation) = |reservation| {
        reservation.gpu_ids = vec!["GPU-0".into()];
        reservation.gpu_share_milli = 1_000;
    };
    for change in [expired, elsewhere, greedy, gpu] {
        let (_, end) = refused(change).await;
        assert_eq!(end.unwrap_err().reason, Reason::ReservationRefused);
    }
    assert_eq!(host.fake.calls(Call::Create), 0);
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    // The epoch that was admitted survives the process; an older one does not get in.
    wolf.stop().await;
    let wolf = host.start().await;
    let mut old = host.request("s2", "e2");
    old.reservation.as_mut().unwrap().epoch = 2;
    let (_, end) = wolf.create(old).await;
    assert_eq!(end.unwrap_err().metadata["refusal"], "epoch_stale");
    wolf.stop().await;
}

#[tokio::test]
async fn images_are_found_fetched_or_told_missing() {
    let host = Host::new();
    let wolf = host.start().await;
    let with = |sandbox: &str, image: &str| {
        let mut request = host.request(sandbox, "e1");
        request.spec.as_mut().unwrap().image = image.into();
        request
    };
    let (_, end) = wolf.create(with("s1", "wolfpack/unknown")).await;
    assert_eq!(end.unwrap_err().reason, Reason::ImageNotFound);
    assert_eq!(host.fake.calls(Call::Pull), 0, "our own images are never fetched");

    host.fake.add_remote_image("registry.example/app:latest", json!({"Cmd": ["app"]}));
    let (steps, end) = wolf.create(with("s2", "registry.example/app")).await;
    end.unwrap();
    assert!(steps.iter().any(|step| matches!(step, Step::Pulling(_))), "{steps:?}");
    let (steps, end) = wolf.create(with("s3", "registry.example/app")).await;
    end.unwrap();
    assert!(!steps.iter().any(|step| matches!(step, Step::Pulling(_))), "it is there by now");
    assert_eq!(host.fake.calls(Call::Pull), 1);
    for sandbox in ["s2", "s3"] {
        wolf.remove(sandbox, "", 1).await.unwrap();
    }

    for (fault, reason) in [
        (None, Reason::ImageNotFound),
        (Some(Fault::InBand("toomanyrequests: slow down")), Reason::ImagePullFailed),
        (Some(Fault::InBand("manifest unknown")), Reason::ImageNotFound),
        (Some(Fault::Status(500, "registry unreachable")), Reason::ImagePullFailed),
        (Some(Fault::BreaksOff), Reason::EngineFailed),
    ] {
        if let Some(fault) = fault.clone() {
            host.fake.script(Call::Pull, fault);
        }
        let (_, end) = wolf.create(with("s4", "registry.example/none:1")).await;
        let got = end.unwrap_err();
        assert_eq!(got.reason, reason, "{fault:?}: {got}");
        host.assert_nothing_left(&wolf);
    }
    wolf.stop().await;
}

#[tokio::test]
async fn a_failing_engine_leaves_nothing_behind() {
    let host = Host::new();
    let wolf = host.start().await;
    let faults: [(Call, Fault); 6] = [
        (Call::Inspect, Fault::Status(500, "no")),
        (Call::InspectImage, Fault::Status(500, "no")),
        (Call::Create, Fault::Status(500, "no")),
        (Call::Create, Fault::DoneAnd(500, "done, but")),
        (Call::Start, Fault::Status(500, "no such file or directory")),
        (Call::Start, Fault::DoneAnd(500, "started, but")),
    ];
    for (call, fault) in faults {
        host.fake.script(call, fault.clone());
        let (_, end) = wolf.create(host.request("s1", "e1")).await;
        assert_eq!(end.unwrap_err().reason, Reason::EngineFailed, "{call:?} {fault:?}");
        until("nothing is left", || wolf.lifecycle.holding() == 0).await;
        host.assert_nothing_left(&wolf);
    }
    // A name that is taken by what a timed-out call made is made free, once.
    host.fake.script(Call::Create, Fault::Status(409, "the name is already in use"));
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    wolf.stop().await;
}

#[tokio::test]
async fn a_running_boot_is_not_ended_by_an_engine_that_does_not_answer() {
    let host = Host::new();
    let wolf = host.start().await;
    let (_, first) = wolf.create(host.request("s1", "e1")).await;
    let first = first.unwrap();
    // One look by the create, one for each of the two events: the next is ours.
    until("the events were looked into", || host.fake.calls(Call::Inspect) == 3).await;
    host.fake.script(Call::Inspect, Fault::Status(500, "busy"));
    let (_, end) = wolf.create(host.request("s1", "e1")).await;
    assert_eq!(end.unwrap_err().reason, Reason::EngineFailed);
    assert_eq!(host.container("s1").unwrap().state, "running");
    assert_eq!(wolf.lifecycle.holding(), 1);
    // The same for a new process that is asked before it looked around.
    wolf.stop().await;
    let wolf = host.start().await;
    assert_eq!(wolf.lifecycle.holding(), 1, "adopted by its labels");
    let (_, again) = wolf.create(host.request("s1", "e1")).await;
    assert_eq!(again.unwrap().container_id, first.container_id);
    assert_eq!(host.fake.calls(Call::Remove), 0);
    wolf.stop().await;
}

#[tokio::test]
async fn a_new_process_adopts_what_runs_and_clears_what_does_not() {
    let host = Host::new();
    let wolf = host.start().await;
    for sandbox in ["s1", "s2", "s3"] {
        wolf.create(host.request(sandbox, "e1")).await.1.unwrap();
    }
    wolf.stop().await;
    host.fake.exit(&host.container("s2").unwrap().id, 137, true);
    host.fake.destroy(&host.container("s3").unwrap().id);
    let wolf = host.start().await;
    assert!(host.root().join("s1/token").exists(), "a running sandbox keeps its directory");
    assert!(!host.root().join("s3").exists(), "a left-over directory is cleared");
    assert_eq!(wolf.lifecycle.holding(), 2);
    let listed = wolf.list().await;
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].state(), ContainerState::Running);
    assert_eq!(listed[1].state(), ContainerState::Exited);
    assert_eq!((listed[1].exit_code, listed[1].out_of_memory), (Some(137), true));
    for sandbox in ["s4", "s5"] {
        wolf.create(host.request(sandbox, "e1")).await.1.unwrap();
    }
    let (_, full) = wolf.create(host.request("s6", "e1")).await;
    assert_eq!(
        full.unwrap_err().metadata["blocker"],
        "CPU_SHORT",
        "what was adopted holds its goods"
    );
    wolf.stop().await;
}

#[tokio::test]
async fn a_removal_ends_a_create_that_is_under_way() {
    let host = Host::new();
    let wolf = Arc::new(host.start().await);
    let mut request = host.request("s1", "e1");
    request.spec.as_mut().unwrap().image = "registry.example/slow:1".into();
    host.fake.script(Call::Pull, Fault::Slow(Duration::from_secs(60)));
    let creating = tokio::spawn({
        let wolf = wolf.clone();
        async move { wolf.create(request).await.1 }
    });
    until("the pull began", || host.fake.calls(Call::Pull) == 1).await;
    tokio::time::timeout(WAIT, wolf.remove("s1", "e1", 1)).await.unwrap().unwrap();
    assert_eq!(creating.await.unwrap().unwrap_err().reason, Reason::Cancelled);
    host.assert_nothing_left(&wolf);

    // Also while the engine makes the container: nothing comes of it afterwards.
    host.fake.script(Call::Create, Fault::Slow(Duration::from_millis(300)));
    let creating = tokio::spawn({
        let (wolf, request) = (wolf.clone(), host.request("s1", "e2"));
        async move { wolf.create(request).await.1 }
    });
    until("the create began", || host.fake.calls(Call::Create) == 1).await;
    wolf.remove("s1", "", 1).await.unwrap();
    assert_eq!(creating.await.unwrap().unwrap_err().reason, Reason::Cancelled);
    host.assert_nothing_left(&wolf);
}

#[tokio::test]
async fn a_create_goes_on_when_its_caller_goes_away() {
    let host = Host::new();
    let wolf = host.start().await;
    host.fake.script(Call::Create, Fault::Slow(Duration::from_millis(200)));
    let steps = wolf.runtime.create_sandbox(Request::new(host.request("s1", "e1"))).await.unwrap();
    drop(steps);
    until("it runs", || host.container("s1").is_some_and(|made| made.state == "running")).await;
    wolf.stop().await;
}

#[tokio::test]
async fn another_boot_replaces_the_one_before_and_stale_owners_are_fenced() {
    let host = Host::new();
    let wolf = host.start().await;
    let (_, first) = wolf.create(host.request("s1", "e1")).await;
    let mut second = host.request("s1", "e2");
    second.owner_epoch = 5;
    let (_, second) = wolf.create(second).await;
    assert_ne!(first.unwrap().container_id, second.unwrap().container_id);
    assert_eq!(host.fake.containers().len(), 1);
    assert_eq!(wolf.lifecycle.holding(), 1);
    wolf.remove("s1", "e1", 5).await.unwrap();
    assert_eq!(host.fake.containers().len(), 1, "an older boot's removal is not this one's");
    assert!(host.root().join("s1/token").exists());
    assert_eq!(wolf.remove("s1", "", 4).await, Err(Reason::OwnerFenced));
    let (_, stale) = wolf.create(host.request("s1", "e3")).await;
    assert_eq!(stale.unwrap_err().reason, Reason::OwnerFenced);
    wolf.remove("s1", "e2", 5).await.unwrap();
    host.assert_nothing_left(&wolf);
    wolf.stop().await;
}

#[tokio::test]
async fn a_bridge_that_is_gone_is_made_again() {
    let host = Host::new();
    let wolf = host.start().await;
    host.fake.destroy_network("wolfpack-test");
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    assert_eq!(host.fake.networks(), ["wolfpack-test"]);
    wolf.stop().await;
}

async fn next_change(
    watch: &mut (impl futures::Stream<Item = Result<WatchSandboxesResponse, Status>> + Unpin),
) -> Event {
    let next = tokio::time::timeout(WAIT, watch.next()).await.expect("no change came");
    next.unwrap().unwrap().event.unwrap()
}

#[tokio::test]
async fn a_watch_sees_every_end_whatever_becomes_of_events() {
    let host = Host::new();
    let wolf = host.start().await;
    for sandbox in ["s1", "s2", "s3"] {
        wolf.create(host.request(sandbox, "e1")).await.1.unwrap();
    }
    let watch = wolf.runtime.watch_sandboxes(Request::new(WatchSandboxesRequest {})).await;
    let mut watch = watch.unwrap().into_inner();
    let mut snapshot = BTreeSet::new();
    loop {
        match next_change(&mut watch).await {
            Event::Container(seen) => snapshot.insert(seen.sandbox),
            Event::Bookmark(mark) => {
                assert!(mark.snapshot_complete);
                break;
            }
        };
    }
    assert_eq!(snapshot.len(), 3);
    let mut end_of = async |sandbox: &str| loop {
        if let Event::Container(seen) = next_change(&mut watch).await
            && seen.sandbox == format!("sandboxes/{sandbox}")
            && seen.state() != ContainerState::Running
        {
            return seen;
        }
    };
    host.fake.exit(&host.container("s1").unwrap().id, 7, false);
    assert_eq!(end_of("s1").await.exit_code, Some(7));
    // The stream breaks, and the end falls into the gap.
    host.fake.lose_events(true);
    host.fake.exit(&host.container("s2").unwrap().id, 8, false);
    host.fake.break_events();
    assert_eq!(end_of("s2").await.exit_code, Some(8));
    // Nothing is told at all: the next look finds it.
    host.fake.destroy(&host.container("s3").unwrap().id);
    wolf.list().await;
    assert_eq!(end_of("s3").await.state(), ContainerState::Removed);
    assert_eq!(
        wolf.lifecycle.holding(),
        2,
        "what exited holds until it is removed, what is gone does not"
    );
    wolf.stop().await;
}

#[tokio::test]
async fn logs_keep_their_streams_apart_and_end_with_the_container() {
    let host = Host::new();
    let wolf = host.start().await;
    let read = async |follow: bool| {
        let request = StreamLogsRequest { sandbox: "sandboxes/s1".into(), follow, tail_lines: 0 };
        let stream = wolf.runtime.stream_logs(Request::new(request)).await?.into_inner();
        let pieces: Vec<_> = tokio::time::timeout(WAIT, stream.collect()).await.expect("no end");
        pieces.into_iter().collect::<Result<Vec<StreamLogsResponse>, Status>>()
    };
    assert_eq!(from_status(&read(false).await.unwrap_err()).reason, Reason::SandboxNotFound);
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    let id = host.container("s1").unwrap().id;
    host.fake.log(&id, false, "out\n");
    host.fake.log(&id, true, "err\n");
    let text = |pieces: &[StreamLogsResponse]| -> Vec<(bool, Vec<u8>)> {
        pieces.iter().map(|piece| (piece.stderr, piece.data.to_vec())).collect()
    };
    let both = vec![(false, b"out\n".to_vec()), (true, b"err\n".to_vec())];
    assert_eq!(text(&read(false).await.unwrap()), both);

    host.fake.script(Call::Logs, Fault::BreaksOff);
    assert_eq!(from_status(&read(false).await.unwrap_err()).reason, Reason::EngineFailed);

    // An engine that never ends the stream does not hold the end up.
    host.fake.script(Call::Logs, Fault::Hangs);
    let (pieces, ()) = tokio::join!(read(true), async {
        until("the log is read", || host.fake.calls(Call::Logs) == 3).await;
        host.fake.exit(&id, 0, false);
    });
    assert_eq!(text(&pieces.unwrap()), both);
    wolf.stop().await;
}

#[tokio::test]
async fn only_the_manager_reaches_a_sandbox_and_only_one_that_runs_here() {
    let host = Host::new();
    let wolf = host.start().await;
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    let dialer = AgentDialer { observer: wolf.lifecycle.observer().clone(), root: host.root() };
    let peer = |caller: &str| TunnelPeer {
        caller: caller.into(),
        connection_id: "c".into(),
        traceparent: String::new(),
        target: String::new(),
    };
    let dial = async |sandbox: &str, caller: &str| {
        let target = TunnelTarget::parse(&format!("sandbox-agent:{sandbox}")).unwrap();
        dialer.dial(&target, &peer(caller)).await.map(|_| ()).map_err(|fault| fault.reason)
    };
    let manager = "services/sandbox-manager";
    assert_eq!(dial("s1", manager).await, Err(Reason::TargetUnreachable), "no socket yet");
    let _socket = tokio::net::UnixListener::bind(host.root().join("s1/agent.sock")).unwrap();
    assert_eq!(dial("s1", manager).await, Ok(()));
    assert_eq!(dial("s2", manager).await, Err(Reason::TargetUnreachable));
    for other in ["services/gateway", "users/u1", "services/sandbox-manager2", ""] {
        assert_eq!(dial("s1", other).await, Err(Reason::TargetForbidden), "{other}");
        let allowed =
            ALLOW.check(super::peer(&peer(other)).principal().unwrap_or(&Principal::Anonymous));
        assert!(allowed.is_err(), "{other}");
    }
    assert!(ALLOW.check(super::peer(&peer(manager)).principal().unwrap()).is_ok());
    host.fake.exit(&host.container("s1").unwrap().id, 0, false);
    wolf.list().await;
    assert_eq!(dial("s1", manager).await, Err(Reason::TargetUnreachable));
    wolf.stop().await;
    host.engine_context.supervisor.shutdown(WAIT).await;
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_is_told() {
    let host = Host::new();
    let wolf = host.start().await;
    wolf.create(host.request("s1", "e1")).await.1.unwrap();
    let seen = wolf.lifecycle.observer().snapshot().remove(0);
    let (changes, slow) = tokio::sync::broadcast::channel(2);
    for _ in 0..4 {
        changes.send(crate::lifecycle::Change::Gone(seen.clone())).unwrap();
    }
    let told: Vec<_> = watch::events(&[], slow).collect().await;
    let reasons: Vec<_> = told
        .iter()
        .filter_map(|item| item.as_ref().err())
        .map(|status| from_status(status).reason)
        .collect();
    assert_eq!(reasons, [Reason::WatcherTooSlow]);
    wolf.stop().await;
}

#[test]
fn every_rpc_has_its_row() {
    let set = prost_types::FileDescriptorSet::decode(wolfpack_proto::DESCRIPTOR_SET).unwrap();
    let service = set
        .file
        .iter()
        .flat_map(|file| &file.service)
        .find(|service| service.name() == "WolfRuntimeService")
        .unwrap();
    let rpcs: BTreeSet<String> = service
        .method
        .iter()
        .map(|method| format!("/wolfpack.agent.v1.WolfRuntimeService/{}", method.name()))
        .collect();
    assert_eq!(rpcs, POLICY.iter().map(|row| row.method.to_owned()).collect());
}

#[test]
fn a_damaged_request_is_refused_by_field() {
    let request = CreateSandboxRequest {
        spec: Some(SandboxSpec::default()),
        reservation: Some(Reservation::default()),
        ..CreateSandboxRequest::default()
    };
    assert!(map::create_request(request).is_err());
}

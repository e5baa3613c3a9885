//! Every check over made trees, both ways: it passes, and it can fail.

mod engines;
mod networks;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_dockerd::outer::Outer;
use wolfpack_dockerd::place::StepFailed;
use wolfpack_dockerd::place::mounts;
use wolfpack_dockerd::plan::{Wanted, plan};
use wolfpack_dockerd::status::{Child, ChildState, InitStatus, State, Step};

use super::engine::EngineLook;
use super::*;

/// A made machine.
struct Tree {
    dir: tempfile::TempDir,
    look: Look,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let place = Place {
            docker_socket: root.join("run/docker.sock"),
            data_dir: root.join("var/lib/wolfpack-wolf"),
            gateway: String::new(),
            trust_roots: None,
            dns_port: 53,
            root,
        };
        let look = Look {
            place,
            outer: Ok(Outer::default()),
            engine: Err("no socket".to_owned()),
            init: None,
            mounts: Vec::new(),
        };
        Self { dir, look }
    }

    fn file(self, path: &str, text: &str) -> Self {
        let file = self.dir.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        self
    }

    /// A program that is a shell script.
    fn program(self, name: &str, script: &str) -> Self {
        let path = format!("usr/sbin/{name}");
        let tree = self.file(&path, &format!("#!/bin/sh\n{script}\n"));
        let file = tree.dir.path().join(path);
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
        tree
    }

    fn mounted(mut self, mountinfo: &str) -> Self {
        self.look.mounts = mounts::parse(mountinfo);
        self
    }

    fn engine(mut self, engine: EngineLook) -> Self {
        self.look.engine = Ok(engine);
        self
    }

    fn outer(mut self, outer: Outer) -> Self {
        self.look.outer = Ok(outer);
        self
    }

    fn init(mut self, init: InitStatus) -> Self {
        self.look.init = Some(init);
        self
    }

    /// How the check with this id ends, and what it says.
    async fn check(&self, id: &str) -> Check {
        let (id, run) = CHECKS.iter().find(|(known, _)| *known == id).expect(id);
        let check = run(&self.look).await.named(id);
        let needs_fix = matches!(check.outcome, Outcome::Warn | Outcome::Fail);
        assert_eq!(check.fix.is_empty(), !needs_fix, "{check:?}");
        assert!(!check.message.is_empty(), "{check:?}");
        check
    }

    async fn outcome(&self, id: &str) -> Outcome {
        self.check(id).await.outcome
    }
}

fn engine(parts: &[(&str, &str)]) -> EngineLook {
    let parts = parts.iter().map(|(part, version)| ((*part).to_owned(), (*version).to_owned()));
    EngineLook { driver: "overlay2".to_owned(), parts: parts.collect(), ..EngineLook::default() }
}

fn running() -> InitStatus {
    let child = || Child { state: ChildState::Running, ..Child::default() };
    InitStatus { state: State::Running, engine: child(), agent: child(), ..InitStatus::default() }
}

#[tokio::test]
async fn ids_are_unique_and_every_check_says_something_in_an_empty_place() {
    let ids: BTreeSet<&str> = CHECKS.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), CHECKS.len());
    let tree = Tree::new();
    let checks: Vec<Check> = run_checks(tree.look.place.clone()).await.collect().await;
    let seen: Vec<&str> = checks.iter().map(|check| check.id).collect();
    assert_eq!(seen, CHECKS.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "always in order");
    for check in &checks {
        assert!(!check.message.is_empty(), "{check:?}");
    }
    // Nothing is there, so nothing that needs it may pass; room there is.
    let passed: Vec<&str> =
        checks.iter().filter(|it| it.outcome == Outcome::Pass).map(|it| it.id).collect();
    assert!(passed.iter().all(|id| id.starts_with("storage.")), "{passed:?}");
}

#[tokio::test]
async fn a_check_that_hangs_is_ended() {
    let tree = Tree::new().program("iptables-nft", "exec sleep 600");
    let run: Run = |look| Box::pin(iptables::backends(look));
    let found = within(Duration::from_millis(300), &tree.look, run).await;
    assert_eq!(found.outcome, Outcome::Fail, "{found:?}");
    assert!(found.message.contains("could not be told"), "{found:?}");
}

#[tokio::test]
async fn kernels() {
    for (release, outcome) in [
        ("6.18.44\n", Outcome::Pass),
        ("5.11.0-generic", Outcome::Pass),
        ("5.4.0-91-generic", Outcome::Warn),
        ("3.10.0-1160.el7", Outcome::Fail),
        ("odd", Outcome::Skip),
    ] {
        let tree = Tree::new().file("proc/sys/kernel/osrelease", release);
        assert_eq!(tree.outcome("kernel.version").await, outcome, "{release}");
    }
    let id = "kernel.user-namespaces";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Fail);
    let with = || Tree::new().file("proc/self/ns/user", "");
    assert_eq!(with().outcome(id).await, Outcome::Pass);
    let most = "proc/sys/user/max_user_namespaces";
    assert_eq!(with().file(most, "0\n").outcome(id).await, Outcome::Fail);
    assert_eq!(with().file(most, "15000\n").outcome(id).await, Outcome::Pass);
    for (file, value) in [
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"),
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n"),
    ] {
        assert_eq!(with().file(file, value).outcome(id).await, Outcome::Warn, "{file}");
    }
}

const V1: &str = "\
30 20 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
33 30 0:30 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids";
const V2: &str = "30 20 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate";

#[tokio::test]
async fn cgroups_of_both_versions() {
    assert_eq!(Tree::new().mounted(V2).outcome("cgroup.version").await, Outcome::Pass);
    assert_eq!(Tree::new().mounted(V1).outcome("cgroup.version").await, Outcome::Warn);
    assert_eq!(Tree::new().outcome("cgroup.version").await, Outcome::Fail);

    let id = "cgroup.delegation";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    assert_eq!(Tree::new().mounted(V1).outcome(id).await, Outcome::Pass);
    let read_only = V1.replace("/memory rw,nosuid", "/memory ro,nosuid");
    let check = Tree::new().mounted(&read_only).check(id).await;
    assert!(check.outcome == Outcome::Fail && check.message.contains("memory"), "{check:?}");
    let no_pids = V1.replace("pids", "freezer");
    assert_eq!(Tree::new().mounted(&no_pids).outcome(id).await, Outcome::Fail);

    let v2 = |controllers: &str, enabled: &str| {
        Tree::new()
            .mounted(V2)
            .file("sys/fs/cgroup/cgroup.controllers", controllers)
            .file("sys/fs/cgroup/cgroup.subtree_control", enabled)
    };
    let all = "cpuset cpu io memory pids\n";
    assert_eq!(v2(all, "cpu memory pids\n").outcome(id).await, Outcome::Pass);
    assert_eq!(v2(all, "\n").outcome(id).await, Outcome::Warn);
    assert_eq!(v2("cpu pids", "cpu pids").outcome(id).await, Outcome::Fail);
    assert_eq!(Tree::new().mounted(V2).outcome(id).await, Outcome::Skip);
    let read_only = V2.replace("/sys/fs/cgroup rw", "/sys/fs/cgroup ro");
    assert_eq!(Tree::new().mounted(&read_only).outcome(id).await, Outcome::Fail);
}

#[tokio::test]
async fn storage() {
    let with = |driver: &str| {
        Tree::new().engine(EngineLook { driver: driver.to_owned(), ..EngineLook::default() })
    };
    for (driver, outcome) in [
        ("overlay2", Outcome::Pass),
        ("overlayfs", Outcome::Pass),
        ("btrfs", Outcome::Warn),
        ("vfs", Outcome::Fail),
        ("", Outcome::Fail),
    ] {
        assert_eq!(with(driver).outcome("storage.driver").await, outcome, "{driver}");
    }
    let id = "storage.overlay-depth";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    let overlay = "1 0 0:1 / / rw - overlay overlay rw,lowerdir=/l";
    assert_eq!(Tree::new().mounted(overlay).outcome(id).await, Outcome::Fail);
    for (kind, outcome) in [
        ("ext4", Outcome::Pass),
        ("xfs", Outcome::Pass),
        ("tmpfs", Outcome::Warn),
        ("nfs4", Outcome::Fail),
    ] {
        let volume = format!("{overlay}\n2 1 8:1 / /var/lib/docker rw - {kind} /dev/a rw");
        assert_eq!(Tree::new().mounted(&volume).outcome(id).await, outcome, "{kind}");
    }
    // Where the engine says its data is, not where it usually is.
    let elsewhere = EngineLook { data_root: Some("/data/docker".into()), ..EngineLook::default() };
    let volume = format!("{overlay}\n2 1 8:1 / /var/lib/docker rw - ext4 /dev/a rw");
    let tree = Tree::new().mounted(&volume).engine(elsewhere);
    assert_eq!(tree.outcome(id).await, Outcome::Fail);
}

#[tokio::test]
async fn room_on_disks() {
    let path = std::path::Path::new("/var/lib/docker");
    for (free, outcome) in [
        (500, Outcome::Pass),
        (150, Outcome::Pass),
        (149, Outcome::Warn),
        (50, Outcome::Warn),
        (49, Outcome::Fail),
        (0, Outcome::Fail),
    ] {
        let found = space::judged(path, space::Room { total: 1_000, free }, "bytes");
        assert_eq!(found.outcome, outcome, "{free}");
    }
    // Really measured, of what is there above what is not.
    let check = Tree::new().check("storage.space").await;
    assert!(check.facts["total"].parse::<u64>().unwrap() > 0, "{check:?}");
    assert_ne!(Tree::new().outcome("storage.inodes").await, Outcome::Fail);
}

#[tokio::test]
async fn gpus_and_their_toolkit() {
    let id = "gpu.toolkit";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    let unseen = Tree::new().file("proc/driver/nvidia/version", "NVRM 570");
    assert_eq!(unseen.outcome(id).await, Outcome::Warn);
    let with = |version: &str| {
        let say = format!("#!/bin/sh\necho 'NVIDIA Container Runtime version {version}'\n");
        let tree =
            Tree::new().file("dev/nvidiactl", "").file("usr/bin/nvidia-container-runtime", &say);
        let program = tree.dir.path().join("usr/bin/nvidia-container-runtime");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        tree
    };
    assert_eq!(with("1.17.8").outcome(id).await, Outcome::Pass);
    let check = with("1.17.7").check(id).await;
    assert!(
        check.outcome == Outcome::Fail && check.message.contains("CVE-2025-23266"),
        "{check:?}"
    );
    let packaged = with("1.16.1+ds1").check(id).await;
    assert_eq!(packaged.outcome, Outcome::Warn, "{packaged:?}");
    let bare = Tree::new().file("dev/nvidiactl", "");
    assert_eq!(bare.outcome(id).await, Outcome::Fail);
}

#[tokio::test]
async fn encoders_are_tried() {
    let id = "gpu.encoder";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    let amd = || {
        Tree::new()
            .file("dev/dri/renderD128", "")
            .file("sys/class/drm/renderD128/device/vendor", "0x1002\n")
    };
    assert_eq!(amd().outcome(id).await, Outcome::Skip, "nothing to try it with");
    let good = amd().program("ffmpeg", "echo \"$@\" > \"$0.called\"");
    assert_eq!(good.outcome(id).await, Outcome::Pass);
    let called = std::fs::read_to_string(good.dir.path().join("usr/sbin/ffmpeg.called")).unwrap();
    assert!(called.contains("h264_vaapi") && called.contains("dev/dri/renderD128"), "{called}");
    let bad = amd().program("ffmpeg", "echo 'No usable encoding profile' >&2; exit 1");
    let check = bad.check(id).await;
    assert!(check.outcome == Outcome::Fail && check.message.contains("No usable encoding profile"));
    let listed = amd().program("vainfo", "echo 'VAProfileH264High : VAEntrypointEncSlice'");
    assert_eq!(listed.outcome(id).await, Outcome::Pass);
    let decoder = amd().program("vainfo", "echo 'VAProfileH264High : VAEntrypointVLD'");
    assert_eq!(decoder.outcome(id).await, Outcome::Fail);

    let nvidia = || {
        Tree::new()
            .file("dev/nvidia0", "")
            .file("dev/dri/renderD129", "")
            .file("sys/class/drm/renderD129/device/vendor", "0x10de\n")
    };
    let good = nvidia()
        .program("ffmpeg", "case \"$*\" in *vaapi*) exit 1;; *h264_nvenc*) exit 0;; esac; exit 1");
    assert_eq!(good.outcome(id).await, Outcome::Pass);
    let bad = nvidia()
        .program("ffmpeg", "echo 'OpenEncodeSessionEx failed: out of memory (10)' >&2; exit 1");
    assert_eq!(bad.outcome(id).await, Outcome::Fail);
}

#[tokio::test]
async fn what_the_init_says() {
    let id = "init.status";
    let outcome = |status| async { Tree::new().init(status).outcome(id).await };
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    assert_eq!(outcome(running()).await, Outcome::Pass);
    let failed = StepFailed::new("storage", "it is an overlay", "mount a volume");
    let check = Tree::new().init(InitStatus { failed: Some(failed), ..running() }).check(id).await;
    assert!(check.outcome == Outcome::Fail && check.fix == "mount a volume");
    let down =
        Child { state: ChildState::Restarting, trouble: Some("killed".into()), ..Child::default() };
    let check = Tree::new().init(InitStatus { engine: down, ..running() }).check(id).await;
    assert!(check.outcome == Outcome::Fail && check.message.contains("killed"), "{check:?}");
    let starting = InitStatus { state: State::Starting, ..running() };
    assert_eq!(outcome(starting).await, Outcome::Warn);
    let step = Step {
        name: "nvidia".into(),
        outcome: wolfpack_dockerd::status::Outcome::Degraded,
        note: "its toolkit is old".into(),
        millis: 1,
    };
    assert_eq!(outcome(InitStatus { steps: vec![step], ..running() }).await, Outcome::Warn);
    let again = Child { restarts: 3, ..running().engine };
    assert_eq!(outcome(InitStatus { engine: again, ..running() }).await, Outcome::Warn);
    // As it is read off the disk.
    let tree = Tree::new();
    running().write(&tree.dir.path().join("run")).unwrap();
    assert_eq!(Look::at(tree.look.place.clone()).await.init, Some(running()));
    let tree = tree.file("run/wolfpack-init/status.json", "{\"state\":");
    assert_eq!(Look::at(tree.look.place.clone()).await.init, None, "garbage is no status");
}

#[tokio::test]
async fn the_clock_is_compared_with_the_gateway_s() {
    let id = "clock.gateway";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    let at = |gateway: String| {
        let mut tree = Tree::new();
        tree.look.place.gateway = gateway;
        tree
    };
    assert_eq!(at("https://wolfpack.example:8443".into()).outcome(id).await, Outcome::Skip);
    let mut joined = at("https://127.0.0.1:1".into());
    joined.look.place.trust_roots = Some(joined.dir.path().join("none"));
    assert_eq!(joined.outcome(id).await, Outcome::Skip);
    // Nobody is there.
    assert_eq!(at("http://127.0.0.1:1".into()).outcome(id).await, Outcome::Fail);
    // A real server says its time in every answer.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let check = at(format!("http://{address}")).check(id).await;
    assert_eq!(check.outcome, Outcome::Pass, "{check:?}");
    serving.abort();
}

#[tokio::test]
async fn the_service_sends_every_check_and_echoes() {
    use tonic::Request;
    use wolfpack_proto::agent::v1::wolf_doctor_service_server::WolfDoctorService as _;
    use wolfpack_proto::agent::v1::{EchoRequest, RunChecksRequest};
    use wolfpack_proto::sandbox::v1::CheckOutcome;

    let doctor = Doctor::new(Tree::new().look.place.clone());
    let answers = doctor.run_checks(Request::new(RunChecksRequest {})).await.unwrap();
    let answers: Vec<_> = answers.into_inner().collect().await;
    assert_eq!(answers.len(), CHECKS.len());
    for answer in answers {
        let check = answer.unwrap().check.unwrap();
        assert_ne!(check.outcome(), CheckOutcome::Unspecified, "{check:?}");
    }
    let echo = |answer_bytes| {
        let request = EchoRequest { payload: vec![1; 10].into(), answer_bytes };
        doctor.echo(Request::new(request))
    };
    let answer = echo(1 << 20).await.unwrap().into_inner();
    assert_eq!(answer.payload.len(), 1 << 20);
    assert!(answer.unix_nanos > 1_700_000_000_000_000_000);
    assert_eq!(echo((1 << 20) + 1).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

//! Against a real Docker engine: what is made there, and that nothing is left.
//!
//! Runs where an engine answers on `/var/run/docker.sock` (or `DOCKER_HOST`, a
//! unix socket). Without one it says so and passes, except under `CI=true`,
//! where the engine must be there. It needs `debian:bookworm-slim`.

#![allow(clippy::expect_used, reason = "a helper of a test fails the test")]

mod disk;
mod modes;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use wolfpack_runtime::Context;
use wolfpack_types::capacity::{Capacity, Grant, Holding};
use wolfpack_types::{
    DockerMode, ExecutionId, ProjectId, ReservationId, ReservationState, SandboxId, WolfId,
};
use wolfpack_wolf_agent::admission::{Admission, Claim, EpochFile, Reserved};
use wolfpack_wolf_agent::bridge::{BridgeParts, Bridges};
use wolfpack_wolf_agent::config::{DockerConfig, HostPort, MountsConfig};
use wolfpack_wolf_agent::engine::hardening::{self, Policy};
use wolfpack_wolf_agent::engine::{ContainerState, DockerEngine, Engine};
use wolfpack_wolf_agent::lifecycle::{
    CreateRequest, Lifecycle, Observed, Parts, Quota, Ready, RelayPorts, Settings,
};
use wolfpack_wolf_agent::metrics::Metrics;
use wolfpack_wolf_agent::mounts::{self, Stage};
use wolfpack_wolf_agent::relay::Target;
use wolfpack_wolf_agent::sandbox::{Goods, directory};

const IMAGE: &str = "debian:bookworm-slim";
const WAIT: Duration = Duration::from_secs(60);

/// Stands in for the sandbox's agent: says what it finds, then waits.
const AGENT: &str = r#"#!/bin/sh
echo "token $(cat /run/wolfpack/token)"
echo "caps $(grep CapEff /proc/self/status | cut -f2)"
echo "nnp $(grep NoNewPrivs /proc/self/status | cut -f2)"
echo "seccomp $(grep '^Seccomp:' /proc/self/status | cut -f2)"
echo "host $(grep wolfpack.internal /etc/hosts | cut -f1)"
echo "cgroup $(cat /proc/self/cgroup | head -1)"
touch /run/wolfpack/bin/x 2>/dev/null && echo "bin writable"
touch /run/wolfpack/x && echo "dir writable"
cp /bin/dash /run/wolfpack/suid && chmod 4755 /run/wolfpack/suid && echo "suid left"
ls /var/run/docker.sock /dev/mem /dev/kmsg 2>/dev/null && echo "host things"
echo "to stderr" >&2
echo "done"
trap 'exit 3' TERM
while :; do sleep 0.05; done
"#;

/// The engine's socket, or why there is none.
async fn socket() -> Option<PathBuf> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "/var/run/docker.sock".to_owned());
    let socket = PathBuf::from(host.strip_prefix("unix://").unwrap_or(&host));
    let engine = DockerEngine::new(&socket);
    let missing = match engine.info().await {
        Ok(_) => match engine.image(IMAGE).await {
            Ok(Some(_)) => return Some(socket),
            Ok(None) => format!("the engine has no image {IMAGE}"),
            Err(error) => error.to_string(),
        },
        Err(error) => format!("{} does not answer: {error}", socket.display()),
    };
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{missing}; run scripts/setup");
    eprintln!("not run: {missing}; run scripts/setup to have it");
    None
}

struct Host {
    context: Context,
    engine: Arc<dyn Engine>,
    socket: PathBuf,
    bridges: Mutex<Option<Arc<Bridges>>>,
    wolf: WolfId,
    network: String,
    dir: tempfile::TempDir,
    data_dir: PathBuf,
    bin_dir: PathBuf,
}

impl Host {
    fn new(socket: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let agent = dir.path().join("agent");
        std::fs::write(&agent, AGENT).expect("the script");
        // As /var/lib is: all that keeps others out is what the agent makes.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("a mode");
        let data_dir = dir.path().join("data");
        directory::close(&data_dir, None).expect("closed");
        let bin_dir = directory::install_agent(&data_dir, &agent).expect("installed");
        let wolf = WolfId::new();
        Self {
            context: Context::quiet("wolf"),
            engine: Arc::new(DockerEngine::new(socket)),
            socket: socket.to_owned(),
            bridges: Mutex::default(),
            network: format!("wolfpack-test-{}", &wolf.as_str()[14..]),
            wolf,
            dir,
            data_dir,
            bin_dir,
        }
    }

    /// A process of the agent, ready to work.
    async fn lifecycle(&self) -> Lifecycle {
        let capacity = Capacity {
            cpu_milli: Some(8_000),
            memory_bytes: Some(8 << 30),
            disk_bytes: Some(64 << 30),
            desktop_slots: 4,
            ..Capacity::default()
        };
        let metrics = Metrics::new(&self.context.telemetry.meter());
        let nowhere = |name| Target {
            name,
            address: Arc::new(ArcSwap::from_pointee(HostPort {
                host: "127.0.0.1".into(),
                port: 1,
            })),
        };
        let bridges = Arc::new(Bridges::new(BridgeParts {
            engine: self.engine.clone(),
            wolf: self.wolf.clone(),
            network: self.network.clone(),
            data_dir: self.data_dir.clone(),
            wanted: RelayPorts { gateway: 0, broker: 0 },
            gateway: nowhere("gateway"),
            broker: nowhere("broker"),
            open_ports: Vec::new(),
            supervisor: self.context.supervisor.clone(),
            metrics: metrics.clone(),
        }));
        *self.bridges.lock() = Some(bridges.clone());
        let lifecycle = Lifecycle::new(Parts {
            engine: self.engine.clone(),
            settings: Settings {
                wolf: self.wolf.clone(),
                root: directory::root(&self.data_dir),
                bin_dir: self.bin_dir.clone(),
                gpus: wolfpack_wolf_agent::inventory::Gpus::new(
                    wolfpack_wolf_agent::inventory::Sources::host(),
                ),
                otlp_endpoint: None,
                tcp_ports: wolfpack_types::PortSet::all(),
                uid: 0,
                docker: DockerConfig { shared: true, depth: 1 },
                mounts: MountsConfig {
                    allow: vec![self.dir.path().join("allowed")],
                    ..MountsConfig::default()
                },
                stage: Stage::in_dir(&self.data_dir),
            },
            bridges: bridges.clone(),
            socket: self.socket.clone(),
            trust_roots: Arc::new(|| "roots".to_owned()),
            admission: Admission::new(self.wolf.clone(), capacity, 0),
            epoch: (EpochFile::in_dir(&self.data_dir), 0),
            supervisor: self.context.supervisor.clone(),
            metrics,
        });
        let engine = self.engine.info().await.expect("info");
        directory::close(&self.data_dir, engine.remapped_root).expect("closed");
        let (network, ports) = bridges.shared().await.expect("network");
        lifecycle.observer().resync().await.expect("list");
        let stage = mounts::stages(&self.socket).await;
        lifecycle.set_ready(Ready { engine, network, ports, stage, quota: Quota::default() });
        let (observer, stop) = (lifecycle.observer().clone(), self.context.supervisor.token());
        self.context.supervisor.spawn_restarting("events", move || {
            let (observer, stop) = (observer.clone(), stop.clone());
            async move { Ok(observer.follow(&stop).await?) }
        });
        lifecycle
    }

    fn request(&self, token: &str) -> CreateRequest {
        let (sandbox, project) = (SandboxId::new(), ProjectId::new());
        let holding = Holding {
            cpu_milli: 500,
            memory_bytes: 256 << 20,
            disk_bytes: 0,
            desktop: false,
            grant: Grant::default(),
        };
        CreateRequest {
            claim: Claim {
                sandbox: sandbox.clone(),
                project: project.clone(),
                execution: ExecutionId::new(),
                owner_epoch: 1,
                reservation: Reserved {
                    id: ReservationId::new(),
                    state: ReservationState::Reserved,
                    sandbox,
                    project,
                    wolf: self.wolf.clone(),
                    goods: Goods { holding, pids: 64 },
                    expire_time: Some(SystemTime::now() + WAIT),
                    epoch: 1,
                },
            },
            image: IMAGE.into(),
            command: vec!["true".into()],
            env: BTreeMap::new(),
            desktop: false,
            docker: DockerMode::None,
            mounts: Vec::new(),
            token: token.to_owned().into(),
        }
    }

    /// The log up to these lines; two pipes have no order between them.
    async fn log(&self, container: &str, until: &[(bool, &str)]) -> Vec<(bool, String)> {
        let mut logs = self.engine.logs(container, true, None);
        let mut lines: Vec<(bool, String)> = Vec::new();
        let reading = async {
            while let Some(chunk) = logs.next().await {
                let chunk = chunk.expect("a log");
                let text = String::from_utf8_lossy(&chunk.data).trim().to_owned();
                lines.push((chunk.stderr, text));
                let seen = |last: &(bool, &str)| {
                    lines.iter().any(|(stderr, text)| (*stderr, text.as_str()) == *last)
                };
                if until.iter().all(seen) {
                    break;
                }
            }
        };
        tokio::time::timeout(WAIT, reading).await.expect("the log in time");
        lines
    }

    /// Removes what the test made, whatever became of it.
    async fn clear(&self) {
        for left in self.engine.list("wolfpack.wolf", self.wolf.as_str()).await.expect("list") {
            self.engine.remove(&left.id).await.expect("remove");
        }
        let bridges = self.bridges.lock().take();
        if let Some(bridges) = bridges {
            bridges.leave().await;
            assert!(matches!(bridges.count_rules().await, None | Some(0)), "rules are left");
        }
        self.engine.remove_network(&self.network).await.expect("it is removed");
        self.context.supervisor.shutdown(WAIT).await;
    }
}

/// A test that failed half way leaves nothing either.
impl Drop for Host {
    fn drop(&mut self) {
        let filter = format!("label=wolfpack.wolf={}", self.wolf);
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        for left in String::from_utf8_lossy(&listed).lines() {
            let _ = Command::new("docker").args(["rm", "-fv", left]).output();
        }
        let _ = Command::new("docker").args(["network", "rm", &self.network]).output();
    }
}

async fn create(lifecycle: &Lifecycle, request: CreateRequest) -> Observed {
    let mut progress = lifecycle.create(request).await.expect("admitted");
    let ended = tokio::time::timeout(WAIT, progress.wait_for(|now| now.outcome.is_some())).await;
    let ended = ended.expect("in time").expect("an outcome").clone();
    ended.outcome.expect("an outcome").expect("a container")
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < WAIT, "it did not come to be: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn docker_inspect(container: &str) -> Option<Value> {
    let output = Command::new("docker").args(["inspect", container]).output().ok()?;
    serde_json::from_slice::<Value>(&output.stdout).ok()?.get(0).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_engine_makes_hardened_sandboxes_and_keeps_none() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket);
    let lifecycle = host.lifecycle().await;
    let ready = lifecycle.ready_now().expect("ready");

    let request = host.request("the-token");
    let sandbox = request.claim.sandbox.clone();
    let made = create(&lifecycle, request.clone()).await;
    let id = made.container.id.clone();

    let lines = host.log(&id, &[(true, "to stderr"), (false, "done")]).await;
    let out = lines.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    let says =
        |line: &str| assert!(out.lines().any(|said| said == line), "{line:?} not in:\n{out}");
    says("token the-token");
    says("caps 00000000000001eb");
    says("nnp 1");
    says("seccomp 2");
    says(&format!("host {}", ready.network.gateway));
    says("dir writable");
    assert!(!out.contains("bin writable") && !out.contains("host things"), "{out}");
    assert!(out.lines().any(|line| line.starts_with("cgroup") && line.ends_with(":/")), "{out}");

    if let Some(shown) = docker_inspect(&id) {
        assert_eq!(
            hardening::violations(&shown["HostConfig"], &Policy::default()),
            Vec::<String>::new()
        );
        assert_eq!(shown["HostConfig"]["Memory"], 256 << 20);
        assert_eq!(shown["HostConfig"]["NanoCpus"], 500_000_000);
        assert!(!shown.to_string().contains("the-token"), "inspect shows no secret");
        assert_eq!(shown["Config"]["Labels"]["wolfpack.sandbox"], sandbox.as_str());
    }

    // The same boot again, and by another process of the agent.
    assert_eq!(create(&lifecycle, request.clone()).await.container.id, id);
    let second = host.lifecycle().await;
    assert_eq!(second.holding(), 1);
    assert_eq!(create(&second, request.clone()).await.container.id, id);

    // Sandboxes do not reach one another.
    let neighbour = create(&lifecycle, host.request("t")).await;
    assert_ne!(neighbour.container.id, id);

    // An end is seen with its code.
    let (_, mut changes) = lifecycle.observer().watch();
    Command::new("docker").args(["kill", "-s", "TERM", &id]).output().expect("docker");
    let ended = tokio::time::timeout(WAIT, async {
        loop {
            if let Ok(wolfpack_wolf_agent::lifecycle::Change::Is(seen)) = changes.recv().await
                && seen.container.id == id
                && seen.container.state == ContainerState::Exited
            {
                return seen;
            }
        }
    });
    assert_eq!(ended.await.expect("an end").container.exit_code, Some(3));

    let dir = directory::path(&directory::root(&host.data_dir), &sandbox);
    let mode = std::fs::metadata(dir.join("token")).expect("token").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for gone in [sandbox.clone(), neighbour.identity.sandbox] {
        lifecycle.remove(gone.clone(), None, 1).await.expect("removed");
        lifecycle.remove(gone, None, 1).await.expect("it is removed");
    }
    assert!(!dir.exists());
    let engine = host.engine.clone();
    let wolf = host.wolf.clone();
    until("no container is left", || {
        let (engine, wolf) = (engine.clone(), wolf.clone());
        async move { engine.list("wolfpack.wolf", wolf.as_str()).await.expect("list").is_empty() }
    })
    .await;
    assert_eq!(lifecycle.holding(), 0);
    host.clear().await;
}

/// Runs a set-id shell as an account that is nobody's, and says as whom it ran.
fn as_nobody(shell: &Path) -> Result<String, String> {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        // The capabilities of root end with the first program that is run.
        .arg("env")
        .arg(shell)
        .args(["-p", "-c", "id -u"])
        .output()
        .expect("setpriv");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_id_program_of_a_sandbox_is_out_of_reach_on_the_host() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket);
    if std::fs::metadata(&host.data_dir).expect("data").uid() != 0 {
        eprintln!("not run: it takes root to be another account");
        return;
    }
    let lifecycle = host.lifecycle().await;
    let request = host.request("t");
    let sandbox = request.claim.sandbox.clone();
    let made = create(&lifecycle, request).await;
    host.log(&made.container.id, &[(true, "to stderr"), (false, "done")]).await;

    let left = directory::path(&directory::root(&host.data_dir), &sandbox).join("suid");
    let found = std::fs::metadata(&left).expect("the sandbox left it");
    assert_eq!(found.permissions().mode() & 0o7777, 0o4755);
    let refused = as_nobody(&left).expect_err("the sandbox's program ran on the host");
    assert!(refused.contains("ermission denied"), "{refused}");

    // The same file where others may pass shows that it would have worked.
    let opened = host.dir.path().join("opened");
    directory::make_dir(&opened, 0o755).expect("a folder");
    let moved = opened.join("suid");
    std::fs::rename(&left, &moved).expect("moved");
    let ran = as_nobody(&moved).expect("it runs where it can be reached");
    let base = lifecycle.ready_now().and_then(|ready| ready.engine.remapped_root);
    assert_eq!(ran, base.map_or(0, |(uid, _)| uid).to_string(), "is the folder mounted nosuid?");
    host.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_costs_little_over_docker_run() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket);
    let lifecycle = host.lifecycle().await;
    let agent = host.bin_dir.join("wolfpack-sandbox-agent");
    let label = format!("wolfpack.wolf={}", host.wolf);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let begun = Instant::now();
        create(&lifecycle, host.request("t")).await;
        ours.push(begun.elapsed());
        let begun = Instant::now();
        let mount = format!("{}:/agent:ro", agent.display());
        let run = Command::new("docker")
            .args(["run", "-d", "--label", &label, "-v", &mount, "--entrypoint", "/agent", IMAGE])
            .output()
            .expect("docker");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        theirs.push(begun.elapsed());
    }
    ours.sort();
    theirs.sort();
    println!("create -> started {:?}, docker run -d {:?} (medians of 5)", ours[2], theirs[2]);
    host.clear().await;
    // A generous bound on behaviour; speed is measured by scripts/bench.
    assert!(ours[2] < theirs[2] + Duration::from_secs(5));
}

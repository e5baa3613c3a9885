//! What a sandbox writes is bounded from outside of it, on a real engine.

use wolfpack_types::Reason;
use wolfpack_wolf_agent::config::ImagesConfig;
use wolfpack_wolf_agent::disk_bound::{self, DiskBound, Pace};
use wolfpack_wolf_agent::images::HostDisk;

use super::*;

/// What each sandbox may write.
const BOUND: u64 = 64 << 20;
/// A writer that takes a minute for more than it may ever have, in steps that a
/// slow disk takes, too; 25 MiB each.
const STEPS: u64 = 120;
const STEP: u64 = 25 << 20;
/// The engine counts once a minute where its files cannot be read here.
const PATIENCE: Duration = Duration::from_secs(240);

fn write_in(container: &str, folder: &str, how: &str) {
    let script = format!(
        "for i in $(seq {STEPS}); do {how}; sleep 0.5; done",
        how = how.replace("FILE", &format!("{folder}/x"))
    );
    let args = ["exec", "--detach", "--user", "0:0", container, "bash", "-c", &script];
    let started = Command::new("docker").args(args).output().expect("docker");
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
}

/// In these containers runs no watch at all, as if root of the sandbox had
/// ended it: only the agent's is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_ended_its_own_watch_is_ended_for_what_it_writes() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket);
    let lifecycle = host.lifecycle().await;
    let mut ready = lifecycle.ready_now().expect("ready");
    if ready.engine.remapped_root.is_none() {
        // NESTED is offered where users are remapped; where its volume is, and
        // that it is bounded, has nothing to do with that.
        ready.engine.remapped_root = Some((0, 0));
        lifecycle.set_ready(ready);
    }
    let bound = DiskBound::new(disk_bound::Parts {
        lifecycle: lifecycle.clone(),
        disk: Arc::new(HostDisk),
        config: ImagesConfig { reserve_bytes: 0, reserve_percent: 0, ..ImagesConfig::default() },
        root: directory::root(&host.data_dir),
        metrics: Metrics::new(&host.context.telemetry.meter()),
        pace: Pace::default(),
    });
    let stop = host.context.supervisor.token();
    host.context.supervisor.spawn("disk-bound", async move { bound.keep(stop).await });

    let mut made = Vec::new();
    for docker in [DockerMode::Nested, DockerMode::Nested, DockerMode::None, DockerMode::Nested] {
        let mut request = host.request("t");
        request.docker = docker;
        request.claim.reservation.goods.holding.disk_bytes = BOUND;
        made.push(create(&lifecycle, request).await);
    }
    let id = |at: usize| made[at].container.id.as_str();
    let append = "dd if=/dev/zero bs=1M count=25 oflag=append conv=notrunc of=FILE 2>&1";
    write_in(id(0), "/var/lib/docker", append);
    // What is deleted and still open is in no folder.
    let hidden = format!(
        "[ -e /proc/$$/fd/9 ] || {{ exec 9>FILE; rm FILE; }}; {}",
        "dd if=/dev/zero bs=1M count=25 >&9 2>/dev/null"
    );
    write_in(id(1), "/var/lib/docker", &hidden);
    write_in(id(2), "/tmp", append);

    let observer = lifecycle.observer();
    let begun = Instant::now();
    let all_ended = || {
        made[..3].iter().all(|it| {
            let seen = observer.of_sandbox(&it.identity.sandbox).expect("seen");
            seen.container.state == ContainerState::Exited
        })
    };
    while !all_ended() {
        assert!(begun.elapsed() < PATIENCE, "they write on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("ended after {:?}", begun.elapsed());
    for ended in &made[..3] {
        let seen = observer.of_sandbox(&ended.identity.sandbox).expect("seen");
        assert_eq!(seen.reason, Some(Reason::SandboxDiskExceeded), "{seen:?}");
        assert!(seen.message.contains("64.0 MiB"), "{}", seen.message);
        eprintln!("{}", seen.message);
    }
    let neighbour = observer.of_sandbox(&made[3].identity.sandbox).expect("seen");
    assert_eq!((neighbour.container.state, neighbour.reason), (ContainerState::Running, None));
    // It was ended, and did not end by itself when it had written all.
    let volume = docker_inspect(id(0)).expect("inspected");
    let mounts = volume["Mounts"].as_array().expect("mounts").clone();
    let data = mounts.iter().find(|it| it["Destination"] == "/var/lib/docker").expect("a volume");
    let written = Path::new(data["Source"].as_str().expect("a path")).join("x");
    if let Ok(written) = std::fs::metadata(written) {
        assert!(written.len() < STEPS * STEP, "{} bytes", written.len());
    }
    for one in made {
        lifecycle.remove(one.identity.sandbox, None, 1).await.expect("removed");
    }
    host.clear().await;
}

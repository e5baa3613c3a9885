//! Sandboxes that fill the wolf's disk, whatever watches inside of them.

use std::os::unix::fs::MetadataExt as _;

use parking_lot::Mutex;
use wolfpack_proto::types::v1::DockerMode as ProtoMode;

use super::*;
use crate::config::ImagesConfig;
use crate::disk_bound::{self, DiskBound, Known, Pace};
use crate::images::{DiskSource, Space};

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
/// What the sandboxes of these tests may write.
const BOUND: u64 = 8 * M;
/// Far beyond it, tolerance included.
const FAR: u64 = 300 * M;

/// A disk of which the test says how much is free; 2 GiB of it stay so. What is
/// to happen at a look at it does.
struct Free(Mutex<u64>, Mutex<Option<Planned>>);

/// After so many looks, this.
type Planned = (u32, Box<dyn FnOnce() + Send>);

impl Free {
    /// At the look of this number from now, the first being 1.
    fn on_look(&self, number: u32, act: impl FnOnce() + Send + 'static) {
        *self.1.lock() = Some((number, Box::new(act)));
    }
}

impl DiskSource for Free {
    fn space(&self, _: &Path) -> Option<Space> {
        let mut planned = self.1.lock();
        if let Some((number, _)) = planned.as_mut() {
            *number -= 1;
        }
        if planned.as_ref().is_some_and(|(number, _)| *number == 0)
            && let Some((_, act)) = planned.take()
        {
            act();
        }
        Some(Space { total: 100 * G, free: *self.0.lock(), device: 1 })
    }
}

struct Watched {
    bound: DiskBound,
    disk: Arc<Free>,
    known: Known,
}

impl Watched {
    fn new(host: &Host, wolf: &Wolf) -> Self {
        let disk = Arc::new(Free(Mutex::new(90 * G), Mutex::default()));
        let bound = DiskBound::new(disk_bound::Parts {
            lifecycle: wolf.lifecycle.clone(),
            disk: disk.clone(),
            config: ImagesConfig::default(),
            root: host.root(),
            metrics: Metrics::new(&wolf.context.telemetry.meter()),
            pace: Pace { patience: Duration::ZERO, unfreed: Duration::ZERO, ..Pace::default() },
        });
        Self { bound, disk, known: Known::default() }
    }

    async fn look(&mut self) {
        self.bound.look(&mut self.known).await;
    }
}

impl Host {
    /// An engine that remaps users, to ourselves, with its data in a folder.
    fn with_data(&self) -> PathBuf {
        let us = std::fs::metadata(self.dir.path()).unwrap();
        self.fake.remap_users(Some((us.uid(), us.gid())));
        let data = self.dir.path().join("engine");
        std::fs::create_dir(&data).unwrap();
        self.fake.keep_data_in(&data);
        data
    }

    fn bounded(&self, sandbox: &str, mode: ProtoMode, disk_bytes: u64) -> CreateSandboxRequest {
        let mut request = self.request(sandbox, "e1");
        request.spec.as_mut().unwrap().docker = mode.into();
        let resources = request.reservation.as_mut().unwrap().resources.as_mut().unwrap();
        resources.disk_bytes = Some(disk_bytes);
        resources.cpu_milli = Some(100);
        resources.memory_bytes = Some(256 << 20);
        request
    }

    /// The folders of a sandbox's volume and layer, as the engine has them.
    fn folders(&self, data: &Path, sandbox: &str) -> (PathBuf, PathBuf) {
        let made = self.container(sandbox).unwrap();
        let volume = data.join(&made.name);
        let layer = data.join(format!("layer-{}", made.id));
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::create_dir_all(&layer).unwrap();
        (volume, layer)
    }

    fn state(&self, sandbox: &str) -> &'static str {
        self.container(sandbox).unwrap().state
    }
}

/// A file that takes so much room, as a `dd` would leave it.
fn fill(folder: &Path, bytes: u64) {
    let file = std::fs::File::create(folder.join("x")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 >= bytes);
}

#[tokio::test]
async fn a_sandbox_far_beyond_its_disk_is_ended_and_its_status_says_why() {
    let host = Host::new();
    let data = host.with_data();
    let wolf = host.start().await;
    for (sandbox, mode) in
        [("volume", ProtoMode::Nested), ("layer", ProtoMode::None), ("within", ProtoMode::Nested)]
    {
        wolf.create(host.bounded(sandbox, mode, BOUND)).await.1.unwrap();
        host.folders(&data, sandbox);
    }
    let mut events =
        wolf.runtime.watch_sandboxes(Request::new(WatchSandboxesRequest {})).await.unwrap();
    let events = events.get_mut();
    let mut watched = Watched::new(&host, &wolf);
    watched.look().await;
    fill(&host.folders(&data, "volume").0, FAR);
    fill(&host.folders(&data, "layer").1, FAR);
    fill(&host.folders(&data, "within").0, BOUND * 2);
    // The disk is far from full and nothing was large: it is not walked.
    watched.look().await;
    assert_eq!(host.state("volume"), "running");
    *watched.disk.0.lock() -= 2 * FAR;
    // An engine that does not do it is asked again.
    host.fake.script(Call::Kill, Fault::Status(500, "busy"));
    let begun = std::time::Instant::now();
    while (host.state("volume"), host.state("layer")) != ("exited", "exited") {
        assert!(begun.elapsed() < WAIT, "they are not ended");
        watched.look().await;
        // A walk that is not due at once is a moment later.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(host.fake.calls(Call::Kill), 3);
    assert_eq!(host.state("within"), "running", "a little beyond is tolerated");
    for status in wolf.list().await {
        let ended = status.sandbox != "sandboxes/within";
        let reason = if ended { "SANDBOX_DISK_EXCEEDED" } else { "" };
        assert_eq!(status.reason, reason, "{}", status.sandbox);
        assert_eq!(status.message.contains("300"), ended, "{}", status.message);
    }
    let told = async {
        loop {
            let event = events.next().await.unwrap().unwrap().event.unwrap();
            if let Event::Container(status) = event
                && status.state() == ContainerState::Exited
            {
                return status.reason;
            }
        }
    };
    assert_eq!(tokio::time::timeout(WAIT, told).await.unwrap(), "SANDBOX_DISK_EXCEEDED");
    assert_eq!(host.fake.calls(Call::Usage), 0, "the engine need not count");
    // One that ends by itself has no such reason.
    host.fake.exit(&host.container("within").unwrap().id, 3, false);
    until("its end is seen", || {
        let seen = wolf.lifecycle.observer().snapshot();
        seen.iter().all(|seen| seen.container.state == crate::engine::ContainerState::Exited)
    })
    .await;
    let listed = wolf.list().await;
    let within = listed.iter().find(|it| it.sandbox == "sandboxes/within").unwrap();
    assert_eq!((within.reason.as_str(), within.exit_code), ("", Some(3)));
    wolf.stop().await;
}

#[tokio::test]
async fn below_the_reserve_the_largest_offender_goes_first_and_alone() {
    let host = Host::new();
    let data = host.with_data();
    let wolf = host.start().await;
    for (sandbox, bound, used) in [
        ("keeps", 200 * M, 190 * M),
        ("little", BOUND, BOUND + 10 * M),
        ("much", BOUND, BOUND + 50 * M),
        ("unbounded", 0, 120 * M),
    ] {
        wolf.create(host.bounded(sandbox, ProtoMode::Nested, bound)).await.1.unwrap();
        fill(&host.folders(&data, sandbox).0, used);
    }
    let mut watched = Watched::new(&host, &wolf);
    watched.look().await;
    let running = || {
        let all = ["keeps", "little", "much", "unbounded"].into_iter();
        all.filter(|sandbox| host.state(sandbox) == "running").collect::<Vec<_>>()
    };
    assert_eq!(running().len(), 4, "there is room");
    *watched.disk.0.lock() = 2 * G;
    let mut watched = Watched { known: Known::default(), ..watched };
    watched.look().await;
    assert_eq!(running().len(), 4, "the reserve is there");
    *watched.disk.0.lock() = 2 * G - 1;
    watched.look().await;
    assert_eq!(running(), ["keeps", "little", "unbounded"]);
    watched.look().await;
    assert_eq!(running().len(), 3, "its data is on its way out");
    // Once that had its time and did not help, the next ones.
    for left in [&["keeps", "unbounded"][..], &["keeps"], &["keeps"]] {
        watched.known = Known::default();
        watched.look().await;
        assert_eq!(running(), left);
    }
    wolf.stop().await;
}

#[tokio::test]
async fn below_the_reserve_pulls_and_images_go_before_anybody_and_the_ended_is_waited_for() {
    let host = Host::new();
    let data = host.with_data();
    let wolf = host.start().await;
    for sandbox in ["one", "two"] {
        wolf.create(host.bounded(sandbox, ProtoMode::Nested, BOUND)).await.1.unwrap();
        fill(&host.folders(&data, sandbox).0, BOUND * 2);
    }
    let running = || ["one", "two"].iter().filter(|it| host.state(it) == "running").count();
    let mut watched = Watched::new(&host, &wolf);
    let day = Duration::from_secs(24 * 3600);
    watched.bound.pace(Pace { patience: day, settle: Duration::ZERO, unfreed: day });
    *watched.disk.0.lock() = G;
    watched.look().await;
    watched.look().await;
    assert_eq!(running(), 2, "there is still time to make room otherwise");
    watched.bound.pace(Pace { patience: Duration::ZERO, settle: Duration::ZERO, unfreed: day });
    watched.look().await;
    assert_eq!(running(), 1);
    watched.look().await;
    assert_eq!(running(), 1, "what was ended is not removed yet");
    watched.bound.pace(Pace {
        patience: Duration::ZERO,
        settle: Duration::ZERO,
        unfreed: Duration::ZERO,
    });
    watched.look().await;
    assert_eq!(running(), 0, "nor will it be");
    wolf.stop().await;
}

/// A file that is deleted and still open counts once, also when the folders
/// were counted while it had a name.
#[tokio::test]
async fn what_is_gone_by_the_second_count_ends_nobody() {
    let host = Host::new();
    let data = host.with_data();
    let wolf = host.start().await;
    wolf.create(host.bounded("s1", ProtoMode::Nested, BOUND)).await.1.unwrap();
    let volume = host.folders(&data, "s1").0;
    fill(&volume, FAR);
    let mut watched = Watched::new(&host, &wolf);
    watched.disk.on_look(2, move || std::fs::remove_file(volume.join("x")).unwrap());
    watched.look().await;
    assert_eq!(host.state("s1"), "running");
    wolf.stop().await;
}

#[tokio::test]
async fn where_files_cannot_be_read_the_engine_counts_and_not_all_the_time() {
    let host = Host::new();
    let data = host.with_data();
    std::fs::remove_dir(&data).unwrap();
    let wolf = host.start().await;
    for (sandbox, mode) in
        [("volume", ProtoMode::Nested), ("layer", ProtoMode::None), ("within", ProtoMode::Nested)]
    {
        wolf.create(host.bounded(sandbox, mode, BOUND)).await.1.unwrap();
    }
    host.fake.count(&host.container("volume").unwrap().name, FAR);
    host.fake.count(&host.container("layer").unwrap().id, FAR);
    let mut watched = Watched::new(&host, &wolf);
    for _ in 0..5 {
        watched.look().await;
    }
    assert_eq!(host.fake.calls(Call::Usage), 1);
    assert_eq!((host.state("volume"), host.state("layer")), ("exited", "exited"));
    assert_eq!(host.state("within"), "running");
    wolf.stop().await;
}

#[tokio::test]
async fn what_the_engine_keeps_to_a_quota_is_not_watched() {
    let host = Host::new();
    let data = host.with_data();
    let wolf = host.start().await;
    let quota = crate::lifecycle::Quota { containers: true, volumes: true };
    let ready = wolf.lifecycle.ready_now().unwrap();
    wolf.lifecycle.set_ready(crate::lifecycle::Ready { quota, ..ready });
    wolf.create(host.bounded("s1", ProtoMode::Nested, BOUND)).await.1.unwrap();
    let (volume, layer) = host.folders(&data, "s1");
    fill(&volume, FAR);
    fill(&layer, FAR);
    let mut watched = Watched::new(&host, &wolf);
    *watched.disk.0.lock() = G;
    watched.look().await;
    assert_eq!(host.state("s1"), "running");
    // What it leaves in the folder that is its wolf's has no quota.
    fill(&host.container("s1").unwrap().mounted("/run/wolfpack").unwrap(), FAR);
    watched.known = Known::default();
    watched.look().await;
    assert_eq!(host.state("s1"), "exited");
    wolf.stop().await;
}

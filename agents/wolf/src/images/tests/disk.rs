//! A disk that fills up, and what is told of images.

use std::time::UNIX_EPOCH;

use super::loading::until;
use super::*;
use crate::engine::fake::{Call, Fault as EngineFault};

/// One megabyte.
const M: u64 = 1 << 20;

/// A disk that follows what the engine holds and what others write.
struct Shared {
    fake: FakeEngine,
    /// Bytes that are free when no image is gone and nobody wrote.
    free: u64,
    /// Bytes that each image gives back.
    image: u64,
    images: usize,
    written: Mutex<u64>,
}

impl Shared {
    fn of(bench: &Bench, free: u64, image: u64) -> Arc<Self> {
        let (fake, images) = (bench.fake.clone(), bench.fake.images().len());
        Arc::new(Self { fake, free, image, images, written: Mutex::new(0) })
    }

    /// Writes, but no more than fits.
    fn write(&self, bytes: u64) {
        let fits = bytes.min(self.now());
        *self.written.lock() += fits;
    }

    fn gone(&self) -> u64 {
        (self.images - self.fake.images().len()) as u64
    }

    fn now(&self) -> u64 {
        (self.free + self.gone() * self.image).saturating_sub(*self.written.lock())
    }
}

impl DiskSource for Shared {
    fn space(&self, _: &Path) -> Option<Space> {
        Some(Space { total: 1 << 40, free: self.now(), device: 1 })
    }
}

impl Bench {
    /// As it is, on this disk.
    fn on(&self, disk: Arc<dyn DiskSource>) -> Images {
        let images = Images::new(Parts {
            store: self.images.inner.store.clone(),
            config: config(),
            disk,
            data_dir: self.dir.path().to_owned(),
            supervisor: self.context.supervisor.clone(),
        });
        *images.inner.uses.lock() = self.images.inner.uses.lock().clone();
        images
    }

    /// Images of ours, the first used longest ago.
    fn ours(&self, names: &[&str]) {
        for (at, name) in (1u64..).zip(names) {
            self.fake.add_image(name, serde_json::json!({}));
            let when = UNIX_EPOCH + Duration::from_secs(at);
            self.images.inner.uses.lock().brought(&format!("sha256:{name}"), when);
        }
    }

    fn has(&self, name: &str) -> bool {
        self.fake.images().contains(&name.to_owned())
    }
}

/// Of the configuration of these tests: below `SHORT` nothing new comes and
/// images go, until `ENOUGH` is free.
const RESERVE: u64 = M;
const SHORT: u64 = 2 * M;
const ENOUGH: u64 = SHORT + M / 4;

/// A writer that does not wait for anybody. What it writes between two looks is
/// what it gets below the mark, and no more as long as there are images: the
/// reserve is touched by none that writes less than lies between the marks.
#[tokio::test]
async fn a_writer_that_never_slows_down_gets_no_further_than_one_step() {
    for step in [M / 4, SHORT - RESERVE, SHORT - 1, 3 * M] {
        let bench = Bench::new();
        bench.ours(&["used:1", "a:1", "b:1", "c:1", "d:1"]);
        bench.fake.add_image("theirs:1", serde_json::json!({}));
        bench.fake.add_container("used:1");
        let disk = Shared::of(&bench, 6 * M, M);
        let images = bench.on(disk.clone());
        let pressure = images.disk_pressure();
        let mut worst = u64::MAX;
        while disk.gone() < 4 {
            disk.write(step);
            worst = worst.min(disk.now());
            let before = disk.gone();
            images.relieve().await;
            let gone = disk.gone();
            if gone < 4 {
                assert!(disk.now() >= ENOUGH || gone == before, "one look makes all the room");
                assert_eq!(*pressure.borrow(), "");
            }
            assert!(
                gone <= before + 1 || disk.now() - disk.image < ENOUGH,
                "{gone} images went where fewer would do"
            );
        }
        assert!(worst >= SHORT.saturating_sub(step), "step {step}: {worst} were left");
        // Now only what is not ours to remove is left, and it writes on.
        while disk.now() > 0 {
            disk.write(step);
            images.relieve().await;
            assert!(disk.now() >= SHORT || !pressure.borrow().is_empty(), "step {step}");
        }
        assert!(pressure.borrow().contains("less than the reserve"), "{}", *pressure.borrow());
        tokio::time::timeout(WAIT, images.full()).await.unwrap();
        for name in ["used:1", "theirs:1", "wolfpack/sandbox-base:latest"] {
            assert!(bench.has(name), "{name} is not ours to remove");
        }
        *disk.written.lock() = 0;
        images.relieve().await;
        assert_eq!(*pressure.borrow(), "");
    }
}

#[tokio::test]
async fn new_ones_are_refused_before_any_image_goes_and_also_when_none_can() {
    let bench = Bench::new();
    bench.ours(&["a:1"]);
    bench.disk.free(SHORT - 1);
    let pressure = bench.images.disk_pressure();
    bench.fake.script(Call::RemoveImage, EngineFault::Slow(WAIT * 10));
    let images = bench.images.clone();
    let relieving = tokio::spawn(async move { images.relieve().await });
    until(|| bench.fake.calls(Call::RemoveImage) == 1).await;
    assert!(bench.has("a:1") && pressure.borrow().contains("free"), "{}", *pressure.borrow());
    relieving.abort();
    bench.fake.script(Call::RemoveImage, EngineFault::Status(500, "busy"));
    bench.images.relieve().await;
    assert!(bench.has("a:1") && !pressure.borrow().is_empty());
}

#[tokio::test]
async fn the_one_used_longest_ago_goes_first_and_only_as_many_as_needed() {
    for (free, left) in [
        (SHORT, &["a:1", "b:1", "c:1"][..]),
        (SHORT - 1, &["b:1", "c:1"]),
        (SHORT - M / 2, &["c:1"]),
        (SHORT - M, &[]),
    ] {
        let bench = Bench::new();
        bench.ours(&["a:1", "b:1", "c:1"]);
        let disk = Shared::of(&bench, free, M / 2);
        let images = bench.on(disk.clone());
        images.relieve().await;
        let found: Vec<_> = ["a:1", "b:1", "c:1"].into_iter().filter(|it| bench.has(it)).collect();
        assert_eq!(found, left, "{free} were free");
        assert_eq!(*images.disk_pressure().borrow(), "");
    }
}

#[tokio::test]
async fn heartbeats_tell_images_by_last_use_and_a_restart_remembers() {
    let bench = Bench::new();
    bench.images.refresh().await;
    let cached = bench.images.cached();
    assert_eq!(cached.borrow().images.len(), 3);
    bench.images.used("sha256:wolfpack/sandbox-desktop:latest");
    bench.images.refresh().await;
    assert_eq!(cached.borrow().images[0].references, ["wolfpack/sandbox-desktop:latest"]);
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    bench.images.keep(stop).await;
    let again = Images::new(Parts {
        store: bench.images.inner.store.clone(),
        config: config(),
        disk: bench.disk.clone(),
        data_dir: bench.dir.path().to_owned(),
        supervisor: bench.context.supervisor.clone(),
    });
    let listed = again.list().await.unwrap();
    let used: Vec<_> = listed.iter().filter(|it| it.last_use.is_some()).collect();
    assert_eq!(used.len(), 1);
    assert_eq!(used[0].image.references, ["wolfpack/sandbox-desktop:latest"]);
}

#[tokio::test]
async fn a_disk_below_its_reserve_is_full() {
    let bench = Bench::new();
    bench.disk.free(M);
    let waited = tokio::time::timeout(Duration::from_millis(100), bench.images.full()).await;
    assert!(waited.is_err(), "the reserve is there");
    bench.disk.free(M - 1);
    tokio::time::timeout(WAIT, bench.images.full()).await.unwrap();
}

//! A disk that fills up, and what is told of images.

use std::time::UNIX_EPOCH;

use super::*;

/// One megabyte.
const M: u64 = 1 << 20;

#[tokio::test]
async fn a_wolf_refuses_then_makes_room_before_its_disk_is_full() {
    let bench = Bench::new();
    // Two of ours, one of ours that is used, one of somebody else's.
    for name in ["ours:1", "ours:2", "used:1", "theirs:1"] {
        bench.fake.add_image(name, serde_json::json!({}));
    }
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    for (name, when) in [("ours:1", 20), ("ours:2", 10), ("used:1", 1)] {
        bench.images.inner.uses.lock().brought(&format!("sha256:{name}"), at(when));
    }
    bench.fake.add_container("used:1");
    let pressure = bench.images.disk_pressure();
    // Each image gives a quarter of the reserve back; a writer takes a step for
    // each look, and a large one while new sandboxes come.
    let (mut written, mut worst, mut refused) = (0, u64::MAX, 0);
    for _ in 0..40 {
        written += if pressure.borrow().is_empty() { 512 * 1024 } else { 8 * 1024 };
        let gone = 4 - ["ours:1", "ours:2", "used:1", "theirs:1"]
            .iter()
            .filter(|name| bench.fake.images().contains(&(**name).to_owned()))
            .count() as u64;
        let free = (8 * M + gone * M / 4).saturating_sub(written);
        worst = worst.min(free);
        bench.disk.free(free);
        bench.images.relieve().await;
        refused += usize::from(!pressure.borrow().is_empty());
    }
    assert!(refused > 10, "new sandboxes were refused");
    assert!(worst > M, "{worst} bytes were left of a reserve of {M}");
    let left = bench.fake.images();
    for name in ["used:1", "theirs:1", "wolfpack/sandbox-base:latest"] {
        assert!(left.contains(&name.to_owned()), "{name} is not ours to remove");
    }
    for name in ["ours:1", "ours:2"] {
        assert!(!left.contains(&name.to_owned()), "{name} makes room");
    }
    assert!(pressure.borrow().contains("free"), "{}", *pressure.borrow());
    bench.disk.free(100 * M);
    bench.images.relieve().await;
    assert_eq!(*pressure.borrow(), "");
}

#[tokio::test]
async fn the_one_used_longest_ago_goes_first_and_only_as_many_as_needed() {
    let bench = Bench::new();
    for name in ["a:1", "b:1"] {
        bench.fake.add_image(name, serde_json::json!({}));
        bench.images.fetched(&format!("sha256:{name}"));
    }
    let long_ago = UNIX_EPOCH + Duration::from_secs(5);
    *bench.images.inner.uses.lock() = uses::Uses::default();
    bench.images.inner.uses.lock().brought("sha256:b:1", long_ago);
    bench.images.inner.uses.lock().brought("sha256:a:1", clock::now());
    bench.disk.free(2 * M - 1);
    let images = bench.images.clone();
    // The disk is well again as soon as one image is gone.
    let (fake, disk) = (bench.fake.clone(), bench.disk.clone());
    let watching = tokio::spawn(async move {
        while fake.images().contains(&"b:1".to_owned()) {
            tokio::task::yield_now().await;
        }
        disk.free(100 * M);
    });
    images.relieve().await;
    watching.await.unwrap();
    assert!(!bench.fake.images().contains(&"b:1".to_owned()));
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

//! Archives that come whole, in parts, wrong, and where there is no room.

use super::*;
use crate::engine::fake::{Call, Fault as EngineFault, archive};

const NAME: &str = "pushed:1";
const STEP: usize = 100_000;

fn broken() -> Result<Chunk, Fault> {
    Err(Fault::new(Reason::ConnectionReset, "the network broke"))
}

#[tokio::test]
async fn a_whole_archive_is_loaded_and_nothing_of_it_is_kept() {
    let bench = Bench::new();
    let archive = archive(NAME, 1_000_000);
    let (from, loaded) = load(&bench.images, upload(&archive), chunks(&archive, 0, STEP)).await;
    assert_eq!(from, 0);
    assert_eq!(loaded.unwrap()[0].image.references, [NAME]);
    assert_eq!(bench.kept(), []);
    let listed = bench.images.list().await.unwrap();
    assert!(listed.iter().any(|it| it.image.references == [NAME] && it.last_use.is_none()));
    let names: Vec<_> = listed.iter().map(|it| it.image.references[0].as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let report = bench.context.supervisor.shutdown(WAIT).await;
    assert_eq!(report, wolfpack_runtime::ShutdownReport::default());
}

#[tokio::test]
async fn what_broke_at_half_is_gone_on_with_from_there() {
    let bench = Bench::new();
    let archive = archive(NAME, 2_000_000);
    let half = 10 * STEP;
    for ending in [broken(), Ok(Chunk { offset: 7, data: Bytes::from_static(b"gap") })] {
        let mut first = chunks(&archive[..half], 0, STEP);
        first.push(ending);
        let (_, outcome) = load(&bench.images, upload(&archive), first).await;
        let reason = outcome.unwrap_err().reason;
        assert!(matches!(reason, Reason::ConnectionReset | Reason::RequestInvalid), "{reason:?}");
        assert_eq!(bench.kept().len(), 1);
        assert!(!bench.fake.images().contains(&NAME.to_owned()), "half an archive is none");
        // The next one begins anew, to break once more.
        let part = bench.dir.path().join("uploads").join(format!("{}.part", digest_of(&archive)));
        assert_eq!(std::fs::metadata(&part).unwrap().len(), half as u64);
        std::fs::remove_file(&part).unwrap();
    }
    let (_, outcome) =
        load(&bench.images, upload(&archive), chunks(&archive[..half], 0, STEP)).await;
    assert_eq!(outcome.unwrap_err().reason, Reason::ConnectionReset, "it ended early");
    let (from, loaded) = load(&bench.images, upload(&archive), chunks(&archive, half, STEP)).await;
    assert_eq!(from, half as u64);
    assert_eq!(loaded.unwrap()[0].image.references, [NAME]);
    assert_eq!(bench.kept(), []);
}

#[tokio::test]
async fn a_caller_that_goes_away_breaks_it_off_and_may_come_back() {
    let bench = Bench::new();
    let archive = archive(NAME, 1_000_000);
    let half = chunks(&archive[..5 * STEP], 0, STEP);
    let coming = futures::stream::iter(half).chain(futures::stream::pending());
    let mut told = bench.images.load(upload(&archive), coming.boxed());
    assert_eq!(told.recv().await.unwrap().unwrap(), LoadEvent::Accepted(0));
    until(|| bench.kept().first().is_some_and(|(_, size)| *size == 5 * STEP as u64)).await;
    drop(told);
    until(|| bench.images.inner.uploads.active().is_empty()).await;
    let (from, loaded) =
        load(&bench.images, upload(&archive), chunks(&archive, 5 * STEP, STEP)).await;
    assert_eq!(from, 5 * STEP as u64);
    loaded.unwrap();
}

#[tokio::test]
async fn a_newer_call_goes_on_and_the_older_hears_so() {
    let bench = Bench::new();
    let archive = archive(NAME, 1_000_000);
    let half = chunks(&archive[..5 * STEP], 0, STEP);
    let coming = futures::stream::iter(half).chain(futures::stream::pending());
    let mut old = bench.images.load(upload(&archive), coming.boxed());
    assert_eq!(old.recv().await.unwrap().unwrap(), LoadEvent::Accepted(0));
    until(|| bench.kept().first().is_some_and(|(_, size)| *size == 5 * STEP as u64)).await;
    let (from, loaded) =
        load(&bench.images, upload(&archive), chunks(&archive, 5 * STEP, STEP)).await;
    assert_eq!(from, 5 * STEP as u64);
    loaded.unwrap();
    assert_eq!(old.recv().await.unwrap().unwrap_err().reason, Reason::Superseded);
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let good = archive(NAME, 300_000);

    let mut wrong = upload(&good);
    wrong.digest = digest_of(b"another");
    let (_, outcome) = load(&bench.images, wrong, chunks(&good, 0, STEP)).await;
    assert_eq!(outcome.unwrap_err().reason, Reason::ImageDigestMismatch);
    bench.assert_nothing_left(NAME);

    for (what, bad) in [
        ("cut in the end", good[..good.len() - 700].to_vec()),
        ("cut in the layer", good[..100_000].to_vec()),
        ("no tar", vec![7; 10_000]),
        ("a path that leaves", traversal()),
    ] {
        let (_, outcome) = load(&bench.images, upload(&bad), chunks(&bad, 0, STEP)).await;
        assert_eq!(outcome.unwrap_err().reason, Reason::ImageArchiveInvalid, "{what}");
        bench.assert_nothing_left(NAME);
    }
}

/// A good archive, but that one path of it leads out.
fn traversal() -> Vec<u8> {
    let mut bad = archive(NAME, 1_000);
    bad[..15].copy_from_slice(b"../../layer.tar");
    bad[148..156].copy_from_slice(b"        ");
    let sum: u32 = bad[..512].iter().map(|byte| u32::from(*byte)).sum();
    bad[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bad
}

#[tokio::test]
async fn a_disk_without_room_refuses_before_and_in_between() {
    let bench = Bench::new();
    let archive = archive(NAME, 1_000_000);
    bench.disk.free((1 << 20) + 3 * archive.len() as u64 - 1);
    let (_, outcome) = load(&bench.images, upload(&archive), chunks(&archive, 0, STEP)).await;
    assert_eq!(outcome.unwrap_err().reason, Reason::DiskFull);
    bench.assert_nothing_left(NAME);

    // Large enough to be looked at in between.
    let large = crate::engine::fake::archive(NAME, 70 << 20);
    bench.disk.free(1 << 40);
    let coming = chunks(&large, 0, 1 << 20);
    let disk = bench.disk.clone();
    let coming = futures::stream::iter(coming.into_iter().enumerate()).map(move |(at, chunk)| {
        if at == 60 {
            disk.free((1 << 20) - 1);
        }
        chunk
    });
    let mut told = bench.images.load(upload(&large), coming.boxed());
    let fault = loop {
        match tokio::time::timeout(WAIT, told.recv()).await.unwrap().unwrap() {
            Ok(LoadEvent::Done(_)) => panic!("it must be refused"),
            Ok(_) => {}
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.reason, Reason::DiskFull);
    bench.assert_nothing_left(NAME);
}

#[tokio::test]
async fn an_engine_that_fails_is_told_and_leaves_nothing() {
    let bench = Bench::new();
    let archive = archive(NAME, 1_000_000);
    for (words, reason) in [
        ("something is wrong with it", Reason::EngineFailed),
        ("write /x: no space left on device", Reason::DiskFull),
    ] {
        bench.fake.script(Call::LoadImage, EngineFault::Status(500, words));
        let (_, outcome) = load(&bench.images, upload(&archive), chunks(&archive, 0, STEP)).await;
        assert_eq!(outcome.unwrap_err().reason, reason);
        bench.assert_nothing_left(NAME);
    }
}

#[tokio::test]
async fn an_image_that_a_container_stands_on_stays() {
    let bench = Bench::new();
    let archive = archive(NAME, 1_000);
    load(&bench.images, upload(&archive), chunks(&archive, 0, STEP)).await.1.unwrap();
    let held = bench.images.hold("pushed:1");
    assert_eq!(bench.images.remove("pushed:1").await.unwrap_err().reason, Reason::ImageInUse);
    drop(held);
    bench.fake.add_container(NAME);
    for reference in ["pushed:1", "sha256:pushed:1"] {
        let refused = bench.images.remove(reference).await.unwrap_err();
        assert_eq!(refused.reason, Reason::ImageInUse, "{reference}");
    }
    let listed = bench.images.list().await.unwrap();
    let found = listed.iter().find(|it| it.image.references == [NAME]).unwrap();
    assert_eq!(found.image.containers, 1);
    bench.images.remove("wolfpack/sandbox-base").await.unwrap();
    bench.images.remove("wolfpack/sandbox-base").await.unwrap();
    assert!(!bench.fake.images().contains(&"wolfpack/sandbox-base:latest".to_owned()));
    let odd = bench.images.remove("../containers/x").await.unwrap_err();
    assert_eq!(odd.reason, Reason::RequestInvalid);
}

pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WAIT, "it did not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

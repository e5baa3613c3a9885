//! Looking after wolves: images and checks, and who may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use load_image_request::Frame;
use load_image_response::Frame as Told;
use tonic::{Status, Streaming};
use wolfpack_proto::sandbox::v1::*;
use wolfpack_types::{Reason, WolfId};

use crate::harness::*;
use crate::on_each_engine;
use crate::world::World;

const DIGEST: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn start(wolf: &WolfId, size_bytes: u64) -> LoadImageRequest {
    let load = Some(LoadStart { sha256: DIGEST.into(), size_bytes });
    LoadImageRequest { frame: Some(Frame::Start(WolfLoadStart { wolf: wolf.name(), load })) }
}

/// The byte at a place of every archive here.
fn byte(at: u64) -> u8 {
    u8::try_from(at % 251).unwrap()
}

fn chunk(offset: u64, length: usize) -> LoadImageRequest {
    let data = (offset..).take(length).map(byte).collect::<Vec<_>>().into();
    LoadImageRequest { frame: Some(Frame::Chunk(LoadChunk { offset, data })) }
}

async fn told(answers: &mut Streaming<LoadImageResponse>) -> Result<Told, Status> {
    let message = tokio::time::timeout(SOON, answers.message()).await.unwrap()?;
    Ok(message.expect("an answer").frame.unwrap())
}

/// Every rpc that names a wolf.
async fn each_rpc(client: &mut Client, wolf: &str) -> Vec<Result<(), Status>> {
    let wolf = wolf.to_owned();
    let list = ListImagesRequest { wolf: wolf.clone() };
    let remove = RemoveImageRequest { wolf: wolf.clone(), reference: "x:1".into() };
    let load = Some(LoadStart { sha256: DIGEST.into(), size_bytes: 1 });
    let start = WolfLoadStart { wolf: wolf.clone(), load };
    let start = LoadImageRequest { frame: Some(Frame::Start(start)) };
    vec![
        client.images.list_images(list).await.map(drop),
        client.images.remove_image(remove).await.map(drop),
        client.images.load_image(stream::iter([start, chunk(0, 1)])).await.map(drop),
        client.doctor.check_wolf(CheckWolfRequest { wolf }).await.map(drop),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_is_looked_after_by_its_own_admins() {
    on_each_engine(1, |world, manager| async move {
        let shared = world.with(|state| state.wolves.keys().next().unwrap().clone());
        let own = world.add_wolf(8);
        world.give_wolf(&own, "projects/a");
        let nobodys = WolfId::new();
        let table = [
            ("wp_a_admin", &own, None),
            ("wp_a_developer", &own, Some(Reason::RoleTooLow)),
            ("wp_a_viewer", &own, Some(Reason::RoleTooLow)),
            ("wp_b_admin", &own, Some(Reason::WolfNotFound)),
            ("wp_b_platform", &own, Some(Reason::WolfNotFound)),
            ("wp_a_admin", &shared, Some(Reason::CallerForbidden)),
            ("wp_a_platform", &shared, None),
            ("wp_a_admin", &nobodys, Some(Reason::WolfNotFound)),
            ("", &own, Some(Reason::CredentialMissing)),
        ];
        for (key, wolf, expected) in table {
            for (at, answer) in
                each_rpc(&mut manager.client(key), &wolf.name()).await.into_iter().enumerate()
            {
                let seen = answer.err().map(|status| reason(&status));
                assert_eq!(seen, expected, "{key} {wolf} rpc {at}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_listed_and_removed() {
    on_each_engine(1, |world, manager| async move {
        let wolf = world.with(|state| {
            state.images = vec!["used:1".into(), "x:1".into()];
            state.wolves.keys().next().unwrap().name()
        });
        let mut admin = manager.client("wp_a_platform");
        let remove = |reference: &str| RemoveImageRequest {
            wolf: wolf.clone(),
            reference: reference.into(),
        };
        admin.images.remove_image(remove("x:1")).await.unwrap();
        let used = admin.images.remove_image(remove("used:1")).await.unwrap_err();
        assert_eq!(reason(&used), Reason::ImageInUse);
        let list = ListImagesRequest { wolf: wolf.clone() };
        let listed = admin.images.list_images(list).await.unwrap().into_inner().images;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].references, ["used:1"]);
    })
    .await;
}

fn one_wolf(world: &World) -> WolfId {
    world.with(|state| state.wolves.keys().next().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_is_gone_on_with() {
    on_each_engine(1, |world, manager| async move {
        let wolf = one_wolf(&world);
        let mut admin = manager.client("wp_a_platform");
        // A caller of its own, that dies in the middle.
        let caller = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut dying = {
            let _inside = caller.enter();
            manager.client("wp_a_platform")
        };
        let half = [start(&wolf, 900_000), chunk(0, 400_000)];
        caller.spawn(async move {
            let sent = stream::iter(half).chain(stream::pending());
            let mut answers = dying.images.load_image(sent).await.unwrap().into_inner();
            let _ = told(&mut answers).await;
            let _ = answers.message().await;
        });
        let there = || world.with(|state| state.uploads.get(DIGEST).map_or(0, Vec::len));
        eventually("half of it is there", || there() == 400_000).await;
        caller.shutdown_background();
        eventually("the wolf's call is reset", || world.with(|it| it.uploads_broken) == 1).await;
        assert_eq!(world.with(|state| state.uploads_ended), 0, "it did not look like the end");

        let rest = [start(&wolf, 900_000), chunk(400_000, 500_000)];
        let mut answers = admin.images.load_image(stream::iter(rest)).await.unwrap().into_inner();
        let Told::Accepted(accepted) = told(&mut answers).await.unwrap() else {
            panic!("accepted")
        };
        assert_eq!(accepted.offset, 400_000);
        let Told::Done(done) = told(&mut answers).await.unwrap() else { panic!("done") };
        assert_eq!(done.images[0].references, ["loaded:1"]);
        let whole = world.with(|state| state.uploads[DIGEST].clone());
        assert!(whole.iter().enumerate().all(|(at, found)| *found == byte(at as u64)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_that_does_not_read_stops_its_caller() {
    on_each_engine(1, |world, manager| async move {
        let wolf = one_wolf(&world);
        world.with(|state| state.uploads_stall = true);
        let mut admin = manager.client("wp_a_platform");
        let size = 64u64 << 20;
        let step = 256 * 1024;
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = taken.clone();
        let chunks = stream::iter(0..size / step as u64).then(move |at| {
            counted.fetch_add(step, Ordering::Relaxed);
            async move { chunk(at * step as u64, step) }
        });
        let sent = stream::iter([start(&wolf, size)]).chain(chunks);
        let mut answers = admin.images.load_image(sent).await.unwrap().into_inner();
        assert!(matches!(told(&mut answers).await.unwrap(), Told::Accepted(_)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let waiting = taken.load(Ordering::Relaxed);
        assert!(waiting < 16 << 20, "{waiting} bytes are kept somewhere");
        world.with(|state| state.uploads_stall = false);
        assert!(matches!(told(&mut answers).await.unwrap(), Told::Done(_)));
        assert_eq!(world.with(|state| state.uploads[DIGEST].len() as u64), size);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_says_what_is_loaded() {
    on_each_engine(1, |world, manager| async move {
        let mut admin = manager.client("wp_a_platform");
        let refused = admin.images.load_image(stream::iter([chunk(0, 1)])).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::FirstMessageMissing);
        let mut bad = start(&one_wolf(&world), 1);
        if let Some(Frame::Start(start)) = &mut bad.frame {
            start.load.as_mut().unwrap().sha256 = "../../etc/passwd".into();
        }
        let refused = admin.images.load_image(stream::iter([bad])).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RequestInvalid);
        let nothing = LoadImageRequest {
            frame: Some(Frame::Start(WolfLoadStart { wolf: one_wolf(&world).name(), load: None })),
        };
        let refused = admin.images.load_image(stream::iter([nothing])).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::RequestInvalid);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_measures_the_tunnel_and_asks_the_wolf() {
    on_each_engine(1, |world, manager| async move {
        let wolf = one_wolf(&world);
        let mut admin = manager.client("wp_a_platform");
        let request = CheckWolfRequest { wolf: wolf.name() };
        let mut answers = admin.doctor.check_wolf(request.clone()).await.unwrap().into_inner();
        let mut checks = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            checks.push(answer.check.unwrap());
        }
        let ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
        let expected = ["tunnel.round-trip", "clock.skew", "tunnel.throughput", "kernel.version"];
        assert_eq!(ids, expected);
        assert_eq!(checks[1].outcome(), CheckOutcome::Warn, "its clock is 5 s ahead");
        let speed: u64 = checks[2].facts["from_wolf_bytes_per_second"].parse().unwrap();
        assert!(speed > 0);
        assert_eq!(checks[3].message, wolf.name());
        world.take_away(&wolf);
        let away = admin.doctor.check_wolf(request).await.unwrap_err();
        assert_eq!(reason(&away), Reason::WolfAway);
    })
    .await;
}

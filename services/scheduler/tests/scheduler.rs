//! The scheduler as a whole: real sockets, real TLS, a real store.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod rig;

use std::time::{Duration, Instant};

use rig::*;
use wolfpack_proto::scheduler::v1::{ExplainRequest, PlaceRequest, ReservationState, Shape};
use wolfpack_proto::types::v1::{EncoderCodec, EncoderNeed, EncoderRequest};
use wolfpack_rpc::error::from_status;
use wolfpack_scheduler::Config;
use wolfpack_scheduler::config::{LeadershipConfig, ReservationConfig};
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::Reason;

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_reservation() {
    for database in TestDatabase::all() {
        let rig = Rig::new().await;
        rig.registry.put(wolf("a", 4000, 1));
        let running = rig.start(rig.config(&database.config)).await;
        let client = &running.client;

        let request = place_request(shape(1500, 1));
        let made = place(client, request.clone()).await.unwrap();
        assert_eq!(made.state(), ReservationState::Reserved);
        assert_eq!(made.wolf, "wolves/a");
        assert_eq!(made.gpu_ids, ["a-gpu-0"]);
        assert_eq!(made.gpu_share_milli, 1000);
        let resources = made.resources.unwrap();
        assert_eq!(resources.cpu_milli, Some(1500));
        assert_eq!(resources.memory_bytes, Some(1 << 30), "the default is filled in");
        assert_eq!(resources.disk_bytes, Some(0));
        assert_eq!(resources.pids, Some(1024));
        let life = made.expire_time.unwrap().seconds - made.create_time.unwrap().seconds;
        assert!((59..=61).contains(&life), "{life} s");

        assert_eq!(
            try_place(client, request.clone()).await.unwrap(),
            made,
            "the same id, the same"
        );
        let other = PlaceRequest { sandbox: "sandboxes/t".into(), ..request };
        assert_eq!(try_place(client, other).await.unwrap_err().reason, Reason::RequestIdReused);

        let full = try_place(client, place_request(shape(100, 1))).await.unwrap_err();
        assert_eq!(full.reason, Reason::NoWolfFits);
        assert_eq!(full.metadata["GPU_BUSY"], "1");
        assert_eq!(full.metadata["wolves"], "1");

        let bound = confirm(client, &made.name).await.unwrap();
        assert_eq!(bound.state(), ReservationState::Bound);
        assert_eq!(bound.expire_time, None);
        assert_eq!(confirm(client, &made.name).await.unwrap(), bound, "confirming is idempotent");
        let refused = ReservationState::Refused.into();
        let ended = release(client, &made.name, refused).await.unwrap();
        assert_eq!(ended.state(), ReservationState::Refused);
        let again = release(client, &made.name, 0).await.unwrap();
        assert_eq!(again.state(), ReservationState::Refused, "it stays as it ended");
        let late = confirm(client, &made.name).await.unwrap_err();
        assert_eq!(late.reason, Reason::ReservationNotLive);
        assert_eq!(late.metadata["state"], "refused");
        let unknown = unknown_reservation();
        let reason = Reason::ReservationNotFound;
        assert_eq!(confirm(client, &unknown).await.unwrap_err().reason, reason);
        assert_eq!(release(client, &unknown, 0).await.unwrap_err().reason, reason);

        let mut next = place_request(shape(100, 1));
        next.excluded_wolves = vec!["wolves/a".into()];
        let excluded = try_place(client, next).await.unwrap_err();
        assert_eq!(excluded.metadata["WOLF_EXCLUDED"], "1");
        try_place(client, place_request(shape(100, 1))).await.unwrap();
        running.stop().await;
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encoders_are_held_and_one_too_many_is_refused() {
    for database in TestDatabase::all() {
        let rig = Rig::new().await;
        let mut encoding = wolf("a", 64_000, 2);
        let capacity = encoding.capacity.as_mut().unwrap();
        capacity.encoder_sessions = Some(3);
        for gpu in &mut capacity.gpus {
            gpu.encoder_sessions = Some(3);
            gpu.encoder_pooled = true;
            gpu.encoder_codecs = vec![EncoderCodec::H264.into()];
        }
        rig.registry.put(encoding.clone());
        let running = rig.start(rig.config(&database.config)).await;
        let client = &running.client;
        let wanted = |need: EncoderNeed| {
            let encoder =
                EncoderRequest { sessions: 1, codec: EncoderCodec::H264.into(), need: need.into() };
            place_request(Shape { encoder: Some(encoder), ..shape(100, 0) })
        };
        let mut held = Vec::new();
        for _ in 0..3 {
            let made = place(client, wanted(EncoderNeed::Required)).await.unwrap();
            assert_eq!((made.encoder_sessions, made.gpu_ids.len()), (1, 0));
            assert!(made.encoder_gpu_id.starts_with("a-gpu-"));
            held.push(made);
        }
        let refused = try_place(client, wanted(EncoderNeed::Required)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::NoWolfFits);
        assert!(refused.metadata.contains_key("ENCODERS_BUSY"), "{refused:?}");
        let soft = place(client, wanted(EncoderNeed::Preferred)).await.unwrap();
        assert_eq!((soft.encoder_sessions, soft.encoder_gpu_id.as_str()), (0, ""));

        // What is held is read back after a restart.
        running.stop().await;
        let running = rig.start(rig.config(&database.config)).await;
        let client = &running.client;
        place(client, wanted(EncoderNeed::Preferred)).await.unwrap();
        let explain = ExplainRequest { shape: wanted(EncoderNeed::Required).shape };
        let told = client.clone().explain(explain).await.unwrap().into_inner();
        assert_eq!(told.verdicts[0].blocker, "ENCODERS_BUSY");
        assert_eq!(told.blocked_by["ENCODERS_BUSY"], 1);
        let again = try_place(client, wanted(EncoderNeed::Required)).await.unwrap_err();
        assert!(again.metadata.contains_key("ENCODERS_BUSY"), "{again:?}");
        release(client, &held[1].name, 0).await.unwrap();
        place(client, wanted(EncoderNeed::Required)).await.unwrap();
        running.stop().await;
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_cannot_be_confirmed_and_its_goods_are_free_again() {
    let database = TestDatabase::sqlite();
    let rig = Rig::new().await;
    rig.registry.put(wolf("a", 1000, 0));
    let reservations =
        ReservationConfig { ttl: Duration::from_secs(1), ..ReservationConfig::default() };
    let config = Config { reservations, ..rig.config(&database.config) };
    let running = rig.start(config).await;
    let made = place(&running.client, place_request(shape(1000, 0))).await.unwrap();
    let full = try_place(&running.client, place_request(shape(1, 0))).await.unwrap_err();
    assert_eq!(full.reason, Reason::NoWolfFits);
    let begin = Instant::now();
    while try_place(&running.client, place_request(shape(1000, 0))).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the goods never came back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let late = confirm(&running.client, &made.name).await.unwrap_err();
    assert_eq!(late.reason, Reason::ReservationNotLive);
    assert_eq!(late.metadata["state"], "expired");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_never_get_more_than_there_is() {
    for database in TestDatabase::all() {
        let rig = Rig::new().await;
        rig.registry.put(wolf("a", 64_000, 1));
        let running = rig.start(rig.config(&database.config)).await;
        let ready = place(&running.client, place_request(shape(64_000, 0))).await.unwrap();
        release(&running.client, &ready.name, 0).await.unwrap();

        let rivals = (0..16).map(|_| {
            let client = running.client.clone();
            tokio::spawn(async move { try_place(&client, place_request(shape(1, 1))).await })
        });
        let answers = futures::future::join_all(rivals).await;
        let winners = answers.iter().filter(|answer| answer.as_ref().unwrap().is_ok()).count();
        assert_eq!(winners, 1, "one gpu, one winner");
        for loser in answers.into_iter().filter_map(|answer| answer.unwrap().err()) {
            assert_eq!(loser.metadata["GPU_BUSY"], "1");
        }

        let same = place_request(shape(10, 0));
        let copies = (0..8).map(|_| {
            let (client, request) = (running.client.clone(), same.clone());
            tokio::spawn(async move { try_place(&client, request).await })
        });
        let copies: Vec<_> = futures::future::join_all(copies)
            .await
            .into_iter()
            .map(|copy| copy.unwrap().unwrap().name)
            .collect();
        assert!(copies.iter().all(|name| *name == copies[0]), "one request, one reservation");
        running.stop().await;
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_scheduler_comes_back_with_what_was_held() {
    let database = TestDatabase::sqlite();
    let rig = Rig::new().await;
    rig.registry.put(wolf("a", 4000, 1));
    // Far longer than `place` tries: it need not wait for its own lease.
    let leadership =
        LeadershipConfig { ttl: Duration::from_secs(600), ..LeadershipConfig::default() };
    let config = || Config { leadership, ..rig.config(&database.config) };
    let first = rig.start(config()).await;
    let bound = place(&first.client, place_request(shape(1000, 1))).await.unwrap();
    confirm(&first.client, &bound.name).await.unwrap();
    let request = place_request(shape(2500, 0));
    let reserved = place(&first.client, request.clone()).await.unwrap();
    first.kill().await;

    let second = rig.start(config()).await;
    let again = place(&second.client, request).await.unwrap();
    assert_eq!(again, reserved, "the request id is known after a restart");
    let full = try_place(&second.client, place_request(shape(1000, 0))).await.unwrap_err();
    assert_eq!(full.metadata["CPU_SHORT"], "1");
    assert_eq!(
        try_place(&second.client, place_request(shape(1, 1))).await.unwrap_err().metadata["GPU_BUSY"],
        "1"
    );
    let bound = confirm(&second.client, &bound.name).await.unwrap();
    assert_eq!(bound.state(), ReservationState::Bound);
    let new = try_place(&second.client, place_request(shape(400, 0))).await.unwrap();
    assert!(new.epoch > reserved.epoch, "the epoch grows with each leadership");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wolf_that_is_deregistered_loses_its_reservations() {
    let database = TestDatabase::sqlite();
    let rig = Rig::new().await;
    rig.registry.put(wolf("a", 4000, 0));
    let running = rig.start(rig.config(&database.config)).await;
    let made = place(&running.client, place_request(shape(1000, 0))).await.unwrap();
    confirm(&running.client, &made.name).await.unwrap();
    rig.registry.remove("wolves/a");
    let begin = Instant::now();
    loop {
        let found = confirm(&running.client, &made.name).await;
        if let Err(fault) = found {
            assert_eq!(fault.metadata["state"], "lost");
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_every_wolf_once_and_agrees_with_place() {
    let database = TestDatabase::sqlite();
    let rig = Rig::new().await;
    rig.registry.put(wolf("big", 8000, 0));
    rig.registry.put(wolf("small", 2000, 0));
    let mut detached = wolf("detached", 8000, 0);
    detached.tunnel_attached = false;
    rig.registry.put(detached);
    let mut theirs = wolf("theirs", 8000, 0);
    theirs.project = "projects/theirs".into();
    rig.registry.put(theirs);
    let running = rig.start(rig.config(&database.config)).await;
    let first = place(&running.client, place_request(shape(100, 0))).await.unwrap();
    release(&running.client, &first.name, 0).await.unwrap();

    let request = ExplainRequest { shape: Some(shape(3000, 0)) };
    let explained = running.client.clone().explain(request).await.unwrap().into_inner();
    let verdicts: Vec<(&str, bool, &str)> = explained
        .verdicts
        .iter()
        .map(|verdict| (verdict.wolf.as_str(), verdict.fits, verdict.blocker.as_str()))
        .collect();
    assert_eq!(
        verdicts,
        [
            ("wolves/big", true, ""),
            // A service sees the whole fleet.
            ("wolves/theirs", true, ""),
            ("wolves/detached", false, "TUNNEL_DETACHED"),
            ("wolves/small", false, "CPU_SHORT"),
        ]
    );
    let blocked: u32 = explained.blocked_by.values().sum();
    assert_eq!(blocked as usize + 2, explained.verdicts.len());
    assert!(explained.verdicts[3].message.contains("1000 missing"), "{:?}", explained.verdicts[3]);
    let placed = try_place(&running.client, place_request(shape(3000, 0))).await.unwrap();
    assert_eq!(placed.wolf, explained.verdicts[0].wolf);

    let none = try_place(&running.client, place_request(shape(9000, 0))).await.unwrap_err();
    assert_eq!(none.metadata["wolves"], "3", "another project's wolf is not counted");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_manager_places_and_the_gateway_is_nobody() {
    let database = TestDatabase::sqlite();
    let rig = Rig::new().await;
    let running = rig.start(rig.config(&database.config)).await;
    for (service, reason) in [
        ("gateway", Reason::CredentialMissing),
        ("registry", Reason::CallerForbidden),
        ("tunnel-broker", Reason::CallerForbidden),
    ] {
        let client = rig.client(service, running.address);
        let refused = try_place(&client, place_request(shape(1, 0))).await.unwrap_err();
        assert_eq!(refused.reason, reason, "{service}");
    }
    let mut gateway = rig.client("gateway", running.address);
    let refused = gateway.explain(ExplainRequest { shape: Some(shape(1, 0)) }).await.unwrap_err();
    assert_eq!(from_status(&refused).reason, Reason::CredentialMissing);
    let invalid = PlaceRequest { request_id: "x".into(), ..place_request(shape(1, 0)) };
    let refused = try_place(&running.client, invalid).await.unwrap_err();
    assert_eq!(refused.reason, Reason::RequestInvalid);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_resumes_and_old_news_are_not_acted_upon() {
    let database = TestDatabase::sqlite();
    let rig = Rig::new().await;
    rig.registry.put(wolf("a", 4000, 0));
    let config = Config { stale_after: Duration::from_secs(1), ..rig.config(&database.config) };
    let running = rig.start(config).await;
    place(&running.client, place_request(shape(1, 0))).await.unwrap();
    rig.stop_registry().await;
    let begin = Instant::now();
    let stale = loop {
        match try_place(&running.client, place_request(shape(1, 0))).await {
            Err(fault) => break fault,
            Ok(_) => assert!(begin.elapsed() < Duration::from_secs(10)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(stale.reason, Reason::DependencyUnavailable);
    assert_eq!(stale.metadata["dependency"], "registry");

    rig.registry.put(wolf("b", 9000, 0));
    let context = wolfpack_runtime::Context::quiet("registry");
    rig.registry.serve(&rig.ca, &context, rig.registry_address).await;
    let made = place(&running.client, place_request(shape(8000, 0))).await.unwrap();
    assert_eq!(made.wolf, "wolves/b");
    assert_eq!(*rig.registry.watched_from.lock(), [0, 1], "it went on after what it knew");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_scheduler_waits_and_takes_over() {
    for database in TestDatabase::all() {
        let rig = Rig::new().await;
        rig.registry.put(wolf("a", 4000, 0));
        let first = rig.start(rig.config(&database.config)).await;
        let held = place(&first.client, place_request(shape(3000, 0))).await.unwrap();
        let second = rig.start(rig.config(&database.config)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let refused = try_place(&second.client, place_request(shape(1, 0))).await.unwrap_err();
        assert_eq!(refused.reason, Reason::SchedulerNotLeader);
        assert!(refused.retry_after.is_some());
        try_place(&first.client, place_request(shape(1, 0))).await.unwrap();

        first.kill().await;
        let full = place(&second.client, place_request(shape(2000, 0))).await.unwrap_err();
        assert_eq!(full.metadata["CPU_SHORT"], "1", "what the first one held is still held");
        let new = try_place(&second.client, place_request(shape(1, 0))).await.unwrap();
        assert!(new.epoch > held.epoch);
        second.stop().await;
        database.close().await;
    }
}

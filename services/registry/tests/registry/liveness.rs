//! Whether wolves are alive.

use std::time::Duration;

use wolfpack_proto::registry::v1::{HeartbeatRequest, WolfState};
use wolfpack_types::{Reason, WolfId};

use crate::fleet::{Heart, each, each_beating, reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wolf_joins_registers_beats_and_is_online_while_its_tunnel_is() {
    each(|fleet| async move {
        let wolf = fleet.join("").await;
        let joined = fleet.get(&wolf.id).await;
        assert_eq!((joined.state(), joined.display_name.as_str()), (WolfState::Offline, "a wolf"));
        let registered = wolf.register("instance-1").await.unwrap();
        assert_eq!(registered.capacity.unwrap().desktop_slots, 2);
        assert_eq!(registered.labels["region"], "here");
        let mut heart = wolf.heart("instance-1").await;
        assert_eq!(heart.beat("").await.unwrap(), WolfState::Suspect);
        fleet.broker.attach(&wolf.id.name(), "s1");
        let beating = heart.keep();
        fleet.reaches(&wolf.id, WolfState::Online).await;
        assert!(fleet.get(&wolf.id).await.tunnel_attached);
        fleet.broker.attach(&wolf.id.name(), "s2");
        fleet.broker.detach("s1");
        fleet.broker.detach("s2");
        fleet.reaches(&wolf.id, WolfState::Suspect).await;
        fleet.broker.attach(&wolf.id.name(), "s3");
        fleet.reaches(&wolf.id, WolfState::Online).await;
        // The stream's end marks nothing by itself.
        beating.abort();
        let _ = beating.await;
        assert_eq!(fleet.state(&wolf.id).await, WolfState::Online);
        fleet.reaches(&wolf.id, WolfState::Suspect).await;
        fleet.reaches(&wolf.id, WolfState::Offline).await;
        let silent = fleet.get(&wolf.id).await;
        assert!(silent.tunnel_attached && silent.last_heartbeat_time.is_some());
        // And it comes back.
        let mut heart = wolf.heart("instance-1").await;
        assert_eq!(heart.beat("").await.unwrap(), WolfState::Online);
        assert_eq!(heart.beat("the engine is gone").await.unwrap(), WolfState::Degraded);
        assert!(fleet.get(&wolf.id).await.state_message.contains("the engine is gone"));
        assert_eq!(heart.beat("").await.unwrap(), WolfState::Online);
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_starts_anew_is_believed() {
    each(|mut fleet| async move {
        let (one, two) = (fleet.join("").await, fleet.join("").await);
        for wolf in [&one, &two] {
            wolf.register("i").await.unwrap();
            fleet.broker.attach(&wolf.id.name(), wolf.id.as_str());
            wolf.heart("i").await.keep();
            fleet.reaches(&wolf.id, WolfState::Online).await;
        }
        fleet.broker.lose_memory();
        fleet.broker.attach(&one.id.name(), "again");
        fleet.reaches(&two.id, WolfState::Suspect).await;
        fleet.reaches(&one.id, WolfState::Online).await;
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_wolf_or_instance_is_told_so() {
    each(|fleet| async move {
        let wolf = fleet.join("").await;
        let unregistered = wolf.heart("i").await.beat("").await.unwrap_err();
        assert_eq!(reason(&unregistered), Reason::WolfNotFound);
        wolf.register("i").await.unwrap();
        let other = wolf.heart("another").await.beat("").await.unwrap_err();
        assert_eq!(reason(&other), Reason::WolfNotFound);
        // A certificate of ours for a wolf that never joined.
        let key = rcgen::KeyPair::generate().unwrap();
        let id = WolfId::new();
        let signed = fleet.ca.sign_wolf_csr(&crate::fleet::csr(&key), &id).unwrap().unwrap();
        let stranger = fleet.wolf(&signed.certificate_pem, &key);
        let unknown = Heart::of(&stranger, "i").await.beat("").await.unwrap_err();
        assert_eq!(reason(&unknown), Reason::WolfNotFound);
        let mut client = crate::fleet::Wolves::new(stranger);
        let refused = client.register_wolf(crate::fleet::registration("i")).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::WolfNotFound);
        // Beats are checked one by one.
        let invalid = wolf.heart("").await.beat("").await.unwrap_err();
        assert_eq!(reason(&invalid), Reason::RequestInvalid);
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_stream_and_the_newer_instance_take_over_at_once() {
    each(|fleet| async move {
        let wolf = fleet.join("").await;
        wolf.register("one").await.unwrap();
        let mut first = wolf.heart("one").await;
        first.beat("").await.unwrap();
        let mut second = wolf.heart("one").await;
        second.beat("").await.unwrap();
        // Without another beat of its own.
        let ended = first.answer().await.unwrap_err();
        assert_eq!(reason(&ended), Reason::Superseded);
        wolf.register("two").await.unwrap();
        let ended = second.answer().await.unwrap_err();
        assert_eq!(reason(&ended), Reason::Superseded);
        let mut third = wolf.heart("two").await;
        third.beat("").await.unwrap();
        let fenced = wolf.heart("one").await.beat("").await.unwrap_err();
        assert_eq!(reason(&fenced), Reason::WolfNotFound);
        third.beat("").await.unwrap();
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beats_are_not_changes() {
    // No machine is so loaded that a beat is overdue here: that is a change.
    each_beating(Duration::from_secs(600), |fleet| async move {
        let wolf = fleet.join("").await;
        wolf.register("i").await.unwrap();
        let mut heart = wolf.heart("i").await;
        heart.beat("").await.unwrap();
        fleet.broker.attach(&wolf.id.name(), "s");
        fleet.reaches(&wolf.id, WolfState::Online).await;
        let before = fleet.get(&wolf.id).await;
        for running in 1..9 {
            // What is measured anew is written at once.
            let beat = HeartbeatRequest { running_sandboxes: Some(running), ..Default::default() };
            assert_eq!(heart.tell(beat).await.unwrap(), WolfState::Online);
        }
        let after = fleet.get(&wolf.id).await;
        assert_eq!((before.etag, before.update_time), (after.etag, after.update_time));
        let time = |at: Option<prost_types::Timestamp>| at.map(|at| (at.seconds, at.nanos));
        assert!(time(after.last_heartbeat_time) > time(before.last_heartbeat_time));
        fleet
    })
    .await;
}

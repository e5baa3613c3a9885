//! The store on both engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wolfpack_proto::registry::v1::WolfCapacity;
use wolfpack_store::testing::TestDatabase;
use wolfpack_types::{ExecutionId, InstanceId, Reason, SandboxId, UserId, WolfId};

use super::*;
use crate::domain::health::{Timing, WolfState};
use crate::domain::join_token::JoinToken;
use crate::watch::{Feed, FeedConfig, Source as _, Wolves};

const TIMING: Timing = Timing { interval: Duration::from_secs(10) };

fn registration(instance: &InstanceId) -> Registration {
    Registration {
        display_name: String::new(),
        labels: BTreeMap::from([("region".to_owned(), "here".to_owned())]),
        capacity: WolfCapacity::default(),
        engine: None,
        agent_version: "1".to_owned(),
        instance: instance.clone(),
    }
}

async fn open(database: &TestDatabase) -> Database {
    Database::open(&database.config, Pepper::new([1; 32])).await.unwrap()
}

/// A joined wolf.
async fn join(store: &Database) -> WolfId {
    let token = JoinToken::generate([0; 32]);
    store.create_join_token(&token, None, &UserId::new(), Duration::from_secs(60)).await.unwrap();
    let id = WolfId::new();
    let new = NewWolf { id: id.clone(), display_name: "w".to_owned() };
    store.redeem_join_token(&token, new, TIMING).await.unwrap();
    id
}

fn refused(error: &Error) -> Reason {
    match error {
        Error::Refused(fault) => fault.reason,
        Error::Store(error) => panic!("{error}: {:?}", std::error::Error::source(error)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_beat_and_the_reaper_race_and_the_beat_wins() {
    for database in TestDatabase::all() {
        let store = open(&database).await;
        let wolf = join(&store).await;
        let instance = InstanceId::new();
        store.register_wolf(&wolf, registration(&instance), TIMING).await.unwrap();
        store.set_tunnel(&wolf, true, TIMING).await.unwrap();
        let stream = store.open_heartbeat(&wolf, &instance).await.unwrap();
        // So short that the sweep finds the wolf silent between two beats.
        let hasty = Timing { interval: Duration::from_millis(20) };
        let over = Arc::new(AtomicBool::new(false));
        let reaper = {
            let (store, wolf, over) = (store.clone(), wolf.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut reaped = 0_u32;
                while !over.load(Ordering::Relaxed) {
                    for silent in store.silent_wolves(hasty).await.unwrap() {
                        assert_eq!(silent, wolf);
                        let settled = store.settle(&silent, hasty).await.unwrap();
                        reaped += u32::from(settled.is_some_and(|(_, changed)| changed));
                    }
                    tokio::task::yield_now().await;
                }
                reaped
            })
        };
        let mut last = 0;
        for round in 0..150 {
            let beat =
                store.beat(&wolf, stream, Measurement::default(), None, TIMING).await.unwrap();
            assert!(matches!(beat, Beat::Kept(WolfState::Online, _)), "{round}: {beat:?}");
            let row = store.wolf(&wolf).await.unwrap();
            let time = row.last_heartbeat_time.unwrap();
            assert!(time >= last, "heartbeats went back in time");
            last = time;
            if round % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(35)).await;
            }
        }
        over.store(true, Ordering::Relaxed);
        let reaped = reaper.await.unwrap();
        assert!(reaped > 10, "the reaper must have had its chances: {reaped}");
        store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn beats_take_no_revision_and_changes_do() {
    for database in TestDatabase::all() {
        let store = open(&database).await;
        let wolf = join(&store).await;
        let instance = InstanceId::new();
        let beat = |stream: i64, fault: &str| {
            let (store, wolf) = (store.clone(), wolf.clone());
            let measured = Measurement {
                engine_fault: fault.to_owned(),
                running_sandboxes: Some(3),
                ..Measurement::default()
            };
            async move { store.beat(&wolf, stream, measured, None, TIMING).await.unwrap() }
        };
        let unknown = store.open_heartbeat(&wolf, &instance).await.unwrap_err();
        assert_eq!(refused(&unknown), Reason::WolfNotFound);
        let unknown = store.open_heartbeat(&WolfId::new(), &instance).await.unwrap_err();
        assert_eq!(refused(&unknown), Reason::WolfNotFound);

        store.register_wolf(&wolf, registration(&instance), TIMING).await.unwrap();
        let one = store.open_heartbeat(&wolf, &instance).await.unwrap();
        assert_eq!(beat(one, "").await, Beat::Kept(WolfState::Suspect, true));
        assert!(store.set_tunnel(&wolf, true, TIMING).await.unwrap());
        assert!(!store.set_tunnel(&wolf, true, TIMING).await.unwrap());
        let revision = store.current_revision(WOLVES).await.unwrap();
        for _ in 0..5 {
            assert_eq!(beat(one, "").await, Beat::Kept(WolfState::Online, false));
        }
        store.register_wolf(&wolf, registration(&instance), TIMING).await.unwrap();
        assert_eq!(store.current_revision(WOLVES).await.unwrap(), revision);
        assert_eq!(beat(one, "no engine").await, Beat::Kept(WolfState::Degraded, true));
        assert_eq!(store.current_revision(WOLVES).await.unwrap(), revision + 1);
        let census = store.census().await.unwrap();
        assert_eq!((census.len(), census[0].wolves), (1, 1));
        assert_eq!((census[0].running_sandboxes, census[0].cpu_milli), (Some(3), None));

        let two = store.open_heartbeat(&wolf, &instance).await.unwrap();
        assert_eq!(beat(one, "").await, Beat::Superseded);
        assert_eq!(beat(two, "").await, Beat::Kept(WolfState::Online, true));
        store.register_wolf(&wolf, registration(&InstanceId::new()), TIMING).await.unwrap();
        assert_eq!(beat(two, "").await, Beat::Superseded);
        let row = store.wolf(&wolf).await.unwrap();
        assert_eq!(row.state, "ONLINE", "a restarted agent does not make its wolf look dead");
        store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn a_join_token_lets_one_wolf_in() {
    for database in TestDatabase::all() {
        let store = open(&database).await;
        let token = JoinToken::generate([0; 32]);
        let maker = UserId::new();
        store.create_join_token(&token, None, &maker, Duration::from_secs(60)).await.unwrap();
        let mut joins = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, token) = (store.clone(), JoinToken::parse(&token.reveal()).unwrap());
            joins.spawn(async move {
                let new = NewWolf { id: WolfId::new(), display_name: String::new() };
                store.redeem_join_token(&token, new, TIMING).await
            });
        }
        let results = joins.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(refused(&error), Reason::JoinTokenInvalid);
        }
        let late = JoinToken::generate([0; 32]);
        store.create_join_token(&late, None, &maker, Duration::from_micros(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let new = NewWolf { id: WolfId::new(), display_name: String::new() };
        let error = store.redeem_join_token(&late, new, TIMING).await.unwrap_err();
        assert_eq!(refused(&error), Reason::JoinTokenInvalid);
        store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn another_pepper_is_refused_at_the_door() {
    for database in TestDatabase::all() {
        let store = open(&database).await;
        let error = Database::open(&database.config, Pepper::new([2; 32])).await.err().unwrap();
        assert_eq!(refused(&error), Reason::Internal);
        assert!(open(&database).await.now().await.unwrap().0 > 0);
        store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn signing_keys_rotate_and_old_ones_still_verify() {
    for database in TestDatabase::all() {
        let store = open(&database).await;
        let long = Duration::from_secs(3600);
        let first = store.signing_keys(long).await.unwrap();
        assert_eq!(store.signing_keys(long).await.unwrap()[0].id, first[0].id);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let second = store.signing_keys(Duration::from_micros(1)).await.unwrap();
        assert_eq!(second.len(), 2);
        assert_ne!(second[0].id, first[0].id);
        assert_eq!(second[1].id, first[0].id);
        store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn a_sandbox_is_revoked_by_boot_or_as_a_whole() {
    for database in TestDatabase::all() {
        let store = open(&database).await;
        let (sandbox, one, two) = (SandboxId::new(), ExecutionId::new(), ExecutionId::new());
        store.revoke_sandbox(sandbox.clone(), Some(one.clone())).await.unwrap();
        assert!(store.is_sandbox_revoked(&sandbox, &one).await.unwrap());
        assert!(!store.is_sandbox_revoked(&sandbox, &two).await.unwrap());
        let revision = store.revoke_sandbox(sandbox.clone(), None).await.unwrap();
        assert!(store.is_sandbox_revoked(&sandbox, &two).await.unwrap());
        assert!(!store.is_sandbox_revoked(&SandboxId::new(), &two).await.unwrap());
        // Again is the same row under a newer revision.
        assert!(store.revoke_sandbox(sandbox, None).await.unwrap() > revision);
        assert_eq!(store.revocations_after(0).await.unwrap().len(), 2);
        assert_eq!(store.purge_revocations().await.unwrap(), 0);
        store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn a_wolf_that_never_registered_leaves_a_tombstone_that_watchers_see() {
    for database in TestDatabase::all() {
        let store = open(&database).await;
        let (gone, kept) = (join(&store).await, join(&store).await);
        store.register_wolf(&kept, registration(&InstanceId::new()), TIMING).await.unwrap();
        let bounds = FeedConfig {
            poll: Duration::from_millis(10),
            queue: 8,
            bookmark: Duration::from_secs(1),
            blind: Duration::from_secs(60),
        };
        let feed = Feed::open(Wolves(store.clone()), bounds).await.unwrap();
        let before = store.current_revision(WOLVES).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(store.remove_unregistered(Duration::from_micros(1)).await.unwrap(), 1);
        assert_eq!(refused(&store.wolf(&gone).await.unwrap_err()), Reason::WolfNotFound);
        let changes = Wolves(store.clone()).after(before).await.unwrap();
        assert_eq!(changes.len(), 1);
        assert!(changes[0].deleted && changes[0].key == gone.as_str());
        assert!(feed.get(gone.as_str()).is_some(), "this feed does not run");
        // Not old enough to be forgotten.
        assert_eq!(store.purge_wolves().await.unwrap(), 0);
        assert_eq!(store.wolf_floor().await.unwrap(), 0);
        let error =
            store.register_wolf(&gone, registration(&InstanceId::new()), TIMING).await.unwrap_err();
        assert_eq!(refused(&error), Reason::WolfNotFound);
        store.store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn the_first_user_is_made_once() {
    for database in TestDatabase::all() {
        let store = open(&database).await;
        let keys: Vec<_> =
            (0..4).map(|_| crate::domain::api_key::ApiKeySecret::generate("test")).collect();
        let made = futures::future::join_all(keys.iter().map(|key| store.create_first(key))).await;
        let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
        assert_eq!(made.iter().filter(|first| first.is_some()).count(), 1);
        for (key, first) in keys.iter().zip(&made) {
            assert_eq!(store.authenticate(key).await.is_ok(), first.is_some());
        }
        store.store.close().await.unwrap();
        database.close().await;
    }
}

//! Leases: one holder at a time, and an epoch that only grows.

use std::time::Duration;

use wolfpack_store::lease;
use wolfpack_store::testing::each_engine;

use super::rows::Migrator;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn a_lease_is_anothers_only_after_release_or_expiry_and_the_epoch_grows() {
    each_engine::<Migrator, _, _>("lease", |store, _| async move {
        let db = store.conn();
        let one = lease::acquire(db, "shard", "one", LONG).await.unwrap().unwrap();
        assert_eq!(one.epoch, 1);
        assert!(lease::acquire(db, "shard", "two", LONG).await.unwrap().is_none());
        assert!(lease::holds(db, &one).await.unwrap());
        assert!(lease::acquire(db, "other", "two", LONG).await.unwrap().is_some());

        let renewed = lease::renew(db, &one, LONG).await.unwrap().unwrap();
        assert_eq!(renewed.epoch, 1);
        assert!(renewed.expires_at >= one.expires_at);

        assert!(lease::release(db, &one).await.unwrap());
        assert!(!lease::release(db, &one).await.unwrap(), "it is not held any more");
        assert!(lease::renew(db, &one, LONG).await.unwrap().is_none());
        let two = lease::acquire(db, "shard", "two", SHORT).await.unwrap().unwrap();
        assert_eq!(two.epoch, 2);
        assert!(!lease::release(db, &one).await.unwrap(), "it is another's");

        tokio::time::sleep(SHORT * 2).await;
        assert!(!lease::holds(db, &two).await.unwrap());
        assert!(lease::renew(db, &two, LONG).await.unwrap().is_none(), "it was lost");
        let three = lease::acquire(db, "shard", "three", LONG).await.unwrap().unwrap();
        assert_eq!(three.epoch, 3);
    })
    .await;
}

#[tokio::test]
async fn a_holder_that_restarted_gets_it_back_and_fences_out_its_former_self() {
    each_engine::<Migrator, _, _>("same holder", |store, _| async move {
        let db = store.conn();
        let before = lease::acquire(db, "shard", "one", LONG).await.unwrap().unwrap();
        let after = lease::acquire(db, "shard", "one", LONG).await.unwrap().unwrap();
        assert_eq!((before.epoch, after.epoch), (1, 2));
        assert!(!lease::holds(db, &before).await.unwrap());
        assert!(lease::renew(db, &before, LONG).await.unwrap().is_none());
        let fenced = store
            .tx(|tx| {
                let before = before.clone();
                Box::pin(async move { lease::holds(tx, &before).await })
            })
            .await;
        assert!(!fenced.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_ask_at_once_one_gets_it() {
    each_engine::<Migrator, _, _>("race", |store, _| async move {
        for round in 0..5 {
            let asks: Vec<_> = (0..16)
                .map(|number| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        let holder = format!("holder-{number}");
                        lease::acquire(store.conn(), &format!("k{round}"), &holder, LONG).await
                    })
                })
                .collect();
            let mut won = 0;
            for ask in asks {
                won += u32::from(ask.await.unwrap().unwrap().is_some());
            }
            assert_eq!(won, 1, "round {round}");
        }
    })
    .await;
}

//! Request ids: one effect, however often and from wherever a call is sent.

use std::time::Duration;

use wolfpack_store::idempotency::{self, Claim, IdempotencyError};
use wolfpack_store::testing::each_engine;
use wolfpack_store::{Store, StoreError};

use super::rows::Migrator;

async fn claim(
    store: &Store,
    scope: &'static str,
    id: &'static str,
    hash: u8,
    resource: String,
) -> Result<Claim, IdempotencyError> {
    store
        .tx(|tx| {
            let resource = resource.clone();
            Box::pin(async move { idempotency::claim(tx, scope, id, [hash; 32], &resource).await })
        })
        .await
}

#[tokio::test]
async fn the_same_call_is_replayed_another_body_is_refused() {
    each_engine::<Migrator, _, _>("request ids", |store, _| async move {
        let first = claim(&store, "p/Create", "id", 1, "sandboxes/a".into()).await.unwrap();
        assert_eq!(first, Claim::New);
        let again = claim(&store, "p/Create", "id", 1, "sandboxes/b".into()).await.unwrap();
        assert_eq!(again, Claim::Replay("sandboxes/a".into()));
        let other = claim(&store, "p/Create", "id", 2, "sandboxes/c".into()).await;
        assert!(matches!(other, Err(IdempotencyError::Reused)), "{other:?}");
        let elsewhere = claim(&store, "q/Create", "id", 2, "sandboxes/d".into()).await.unwrap();
        assert_eq!(elsewhere, Claim::New, "another tenant's");

        assert_eq!(idempotency::sweep(store.conn(), Duration::from_secs(60)).await.unwrap(), 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(idempotency::sweep(store.conn(), Duration::from_millis(1)).await.unwrap(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_claim_is_undone_with_its_effect() {
    each_engine::<Migrator, _, _>("claim rolls back", |store, _| async move {
        let undone: Result<(), IdempotencyError> = store
            .tx(|tx| {
                Box::pin(async move {
                    idempotency::claim(tx, "s", "id", [1; 32], "r").await?;
                    Err(StoreError::Damaged("the effect failed".into()).into())
                })
            })
            .await;
        assert!(undone.is_err());
        assert_eq!(claim(&store, "s", "id", 1, "r".into()).await.unwrap(), Claim::New);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_equal_calls_at_once_one_is_new_and_all_name_the_same_resource() {
    each_engine::<Migrator, _, _>("request id race", |store, _| async move {
        let calls: Vec<_> = (0..16)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    let own = format!("sandboxes/{number}");
                    (own.clone(), claim(&store, "s", "id", 1, own).await.unwrap())
                })
            })
            .collect();
        let mut made = Vec::new();
        let mut named = Vec::new();
        for call in calls {
            match call.await.unwrap() {
                (own, Claim::New) => made.push(own),
                (_, Claim::Replay(name)) => named.push(name),
            }
        }
        assert_eq!((made.len(), named.len()), (1, 15));
        assert!(named.iter().all(|name| *name == made[0]), "{named:?}");
    })
    .await;
}

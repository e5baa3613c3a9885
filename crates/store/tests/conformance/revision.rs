//! Watch revisions: without gaps or repeats, in the order of commits.

use wolfpack_store::testing::each_engine;
use wolfpack_store::{StoreError, revision};

use super::rows::Migrator;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn revisions_of_a_scope_have_no_gap_and_no_repeat() {
    each_engine::<Migrator, _, _>("revisions", |store, _| async move {
        assert_eq!(revision::current(store.conn(), "w").await.unwrap(), 0);
        let tasks: Vec<_> = (0..24)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    store
                        .tx(|tx| {
                            Box::pin(async move {
                                let next = revision::next(tx, "w").await?;
                                if number % 4 == 0 {
                                    return Err(StoreError::Damaged("rolled back".into()));
                                }
                                Ok(next)
                            })
                        })
                        .await
                })
            })
            .collect();
        let mut seen = Vec::new();
        for task in tasks {
            seen.extend(task.await.unwrap().ok());
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=18).collect::<Vec<_>>());
        assert_eq!(revision::current(store.conn(), "w").await.unwrap(), 18);
        assert_eq!(revision::current(store.conn(), "other").await.unwrap(), 0);
    })
    .await;
}

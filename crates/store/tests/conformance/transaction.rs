//! The transaction helper: no update is lost, and nothing is half done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sea_orm::TransactionTrait as _;
use wolfpack_store::testing::each_engine;
use wolfpack_store::{DatabaseConfig, Engine, Store, StoreError};

use super::rows::{Migrator, read, write};

const TASKS: u32 = 32;

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error("no")]
    No,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Db(#[from] sea_orm::DbErr),
}

async fn increment(store: &Store) -> Result<(), WorkError> {
    store
        .tx(|tx| {
            let store = store.clone();
            Box::pin(async move {
                let value = read(&store, tx, "n").await?;
                tokio::task::yield_now().await;
                Ok(write(&store, tx, "n", value + 1).await?)
            })
        })
        .await
}

/// The same read-modify-write in a plain transaction.
async fn increment_without_the_helper(store: &Store) -> Result<(), sea_orm::DbErr> {
    let tx = store.conn().begin().await?;
    let value = read(store, &tx, "n").await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    write(store, &tx, "n", value + 1).await?;
    tx.commit().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_increments_all_count() {
    each_engine::<Migrator, _, _>("lost updates", |store, _| async move {
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { increment(&store).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(read(&store, store.conn(), "n").await.unwrap(), i64::from(TASKS));
    })
    .await;
}

/// The control of the test above: without the helper the same work fails on
/// SQLite and loses updates on PostgreSQL. Were it not so, that test would
/// prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_helper_they_do_not() {
    each_engine::<Migrator, _, _>("control", |store, _| async move {
        write(&store, store.conn(), "n", 0).await.unwrap();
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { increment_without_the_helper(&store).await })
            })
            .collect();
        let mut failed = 0;
        for task in tasks {
            failed += i64::from(task.await.unwrap().is_err());
        }
        let kept = read(&store, store.conn(), "n").await.unwrap();
        println!("control on {}: {failed} of {TASKS} failed, {kept} kept", store.engine());
        assert!(kept < i64::from(TASKS));
        match store.engine() {
            Engine::Sqlite => assert!(failed > 0, "deferred transactions conflict on the upgrade"),
            Engine::Postgres => assert_eq!(failed, 0, "the loss is silent"),
        }
    })
    .await;
}

/// Two openers are as good as two processes: the queue of one does not help.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn increments_of_two_openers_all_count() {
    each_engine::<Migrator, _, _>("two openers", |store, config: DatabaseConfig| async move {
        let other = Store::open::<Migrator>(&config).await.unwrap();
        let tasks: Vec<_> = (0..TASKS)
            .map(|number| {
                let store = if number % 2 == 0 { store.clone() } else { other.clone() };
                tokio::spawn(async move { increment(&store).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(read(&store, store.conn(), "n").await.unwrap(), i64::from(TASKS));
        other.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_error_rolls_back_is_passed_on_and_is_not_retried() {
    each_engine::<Migrator, _, _>("roll back", |store, _| async move {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let inner = store.clone();
        let result: Result<(), WorkError> = store
            .tx(|tx| {
                let (store, runs) = (inner.clone(), Arc::clone(&counted));
                Box::pin(async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    write(&store, tx, "n", 7).await?;
                    Err(WorkError::No)
                })
            })
            .await;
        assert!(matches!(result, Err(WorkError::No)), "{result:?}");
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(read(&store, store.conn(), "n").await.unwrap(), 0);
    })
    .await;
}

/// Two transactions that each read what the other writes: one must run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn write_skew_cannot_happen() {
    each_engine::<Migrator, _, _>("write skew", |store, _| async move {
        for round in 0..10 {
            let (a, b) = (format!("a{round}"), format!("b{round}"));
            let on_call = |own: String, other: String| {
                let store = store.clone();
                tokio::spawn(async move {
                    store
                        .tx(|tx| {
                            let (store, own, other) = (store.clone(), own.clone(), other.clone());
                            Box::pin(async move {
                                // Leave only when the other stays.
                                if read(&store, tx, &other).await? == 0 {
                                    tokio::time::sleep(Duration::from_millis(5)).await;
                                    write(&store, tx, &own, 1).await?;
                                }
                                Ok::<_, WorkError>(())
                            })
                        })
                        .await
                })
            };
            let (one, two) =
                tokio::join!(on_call(a.clone(), b.clone()), on_call(b.clone(), a.clone()));
            one.unwrap().unwrap();
            two.unwrap().unwrap();
            let left = read(&store, store.conn(), &a).await.unwrap()
                + read(&store, store.conn(), &b).await.unwrap();
            assert_eq!(left, 1, "round {round}");
        }
    })
    .await;
}

/// A caller that goes away at any moment leaves the store usable and clean.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_transaction_rolls_back_and_harms_nobody() {
    each_engine::<Migrator, _, _>("cancel", |store, _| async move {
        for micros in (0..3_000).step_by(100) {
            let inner = store.clone();
            let cut = store.tx(|tx| {
                let store = inner.clone();
                Box::pin(async move {
                    write(&store, tx, "half", 1).await?;
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    Ok::<_, WorkError>(())
                })
            });
            assert!(tokio::time::timeout(Duration::from_micros(micros), cut).await.is_err());
        }
        let done = tokio::time::timeout(Duration::from_secs(30), increment(&store)).await;
        done.expect("the store still works").unwrap();
        assert_eq!(read(&store, store.conn(), "half").await.unwrap(), 0);
        assert_eq!(read(&store, store.conn(), "n").await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn contention_without_end_is_told_as_such() {
    let database = wolfpack_store::testing::TestDatabase::sqlite();
    let store = database.open::<Migrator>().await;
    let other = database.open::<Migrator>().await;
    // Another process writes and never ends.
    let holder = other
        .conn()
        .begin_with_options(sea_orm::TransactionOptions {
            sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
            ..sea_orm::TransactionOptions::default()
        })
        .await
        .unwrap();
    let result = increment(&store).await;
    let Err(WorkError::Store(error @ StoreError::Contention { .. })) = result else {
        panic!("{result:?}");
    };
    let fault = wolfpack_types::Fault::from(error);
    assert_eq!(fault.reason, wolfpack_types::Reason::Overloaded);
    holder.rollback().await.unwrap();
    increment(&store).await.unwrap();
}

#[tokio::test]
async fn memory_keeps_its_rows_and_its_one_connection() {
    let store = Store::open::<Migrator>(&DatabaseConfig::memory()).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { increment(&store).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(read(&store, store.conn(), "n").await.unwrap(), 8);
}

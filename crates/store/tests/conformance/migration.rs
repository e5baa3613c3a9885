//! Opening: migrations run once, together or apart, and files are private.

use std::os::unix::fs::PermissionsExt as _;

use sea_orm::ConnectionTrait as _;
use wolfpack_store::testing::{TestDatabase, each_engine};
use wolfpack_store::{DatabaseConfig, Engine, Store};

use super::rows::{Migrator, read, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_may_start_together() {
    for database in TestDatabase::all() {
        println!("start together: on {}", database.engine);
        let opens: Vec<_> = (0..6)
            .map(|_| {
                let config = database.config.clone();
                tokio::spawn(async move { Store::open::<Migrator>(&config).await })
            })
            .collect();
        for open in opens {
            let store = open.await.unwrap().unwrap();
            write(&store, store.conn(), "n", 1).await.unwrap();
            store.close().await.unwrap();
        }
        database.close().await;
    }
}

#[tokio::test]
async fn rows_survive_a_restart() {
    each_engine::<Migrator, _, _>("restart", |store, config| async move {
        write(&store, store.conn(), "n", 42).await.unwrap();
        store.close().await.unwrap();
        let again = Store::open::<Migrator>(&config).await.unwrap();
        assert_eq!(read(&again, again.conn(), "n").await.unwrap(), 42);
        again.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn services_of_one_postgres_database_do_not_meet() {
    let (Some(one), Some(two)) = (TestDatabase::postgres(), TestDatabase::postgres()) else {
        return;
    };
    let (first, second) = (one.open::<Migrator>().await, two.open::<Migrator>().await);
    write(&first, first.conn(), "n", 1).await.unwrap();
    assert_eq!(read(&second, second.conn(), "n").await.unwrap(), 0);
    for (store, database) in [(first, one), (second, two)] {
        store.close().await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn a_sqlite_file_is_private_durable_and_guards_foreign_keys() {
    let database = TestDatabase::sqlite();
    let store = database.open::<Migrator>().await;
    write(&store, store.conn(), "n", 1).await.unwrap();
    let path = database.config.url.trim_start_matches("sqlite://");
    for suffix in ["", "-wal"] {
        let mode = std::fs::metadata(format!("{path}{suffix}")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}");
    }
    for (pragma, expected) in
        [("journal_mode", "wal"), ("foreign_keys", "1"), ("busy_timeout", "5000")]
    {
        let row = store
            .conn()
            .query_one_raw(super::rows::sql(&store, &format!("PRAGMA {pragma}"), vec![]))
            .await
            .unwrap()
            .unwrap();
        let found = row
            .try_get_by_index::<String>(0)
            .or_else(|_| row.try_get_by_index::<i64>(0).map(|number| number.to_string()))
            .unwrap();
        assert_eq!(found, expected, "{pragma}");
    }
    assert_eq!(store.engine(), Engine::Sqlite);
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_says_why_without_the_password() {
    let nowhere = DatabaseConfig::postgres("postgres://me:hush@127.0.0.1:1/none", "s");
    let error = Store::open::<Migrator>(&nowhere).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(!format!("{error:?}").contains("hush"));
    let nothing = DatabaseConfig::sqlite(std::path::Path::new("/proc/none/a.db"));
    assert!(Store::open::<Migrator>(&nothing).await.is_err());
    assert!(Store::open::<Migrator>(&DatabaseConfig::default()).await.is_err());
}

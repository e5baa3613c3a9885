//! A fresh database per test. SQLite always; PostgreSQL where
//! `WOLFPACK_TEST_POSTGRES` holds a URL. Where it does not, the PostgreSQL half
//! is not run and says so, and under `CI=true` that fails.
#![allow(clippy::expect_used, clippy::panic, reason = "this is test code")]

use std::future::Future;

use sea_orm::{ConnectionTrait as _, Database};
use sea_orm_migration::MigratorTrait;

use crate::{DatabaseConfig, Engine, Store};

/// The variable that holds the URL of a scratch PostgreSQL database.
pub const POSTGRES: &str = "WOLFPACK_TEST_POSTGRES";

/// A database of a test's own, gone when it is closed (PostgreSQL) or dropped
/// (SQLite).
pub struct TestDatabase {
    /// Opens it, as often as wanted: all openers share its rows.
    pub config: DatabaseConfig,
    /// Its engine.
    pub engine: Engine,
    folder: Option<tempfile::TempDir>,
}

impl TestDatabase {
    /// A file in a temporary folder.
    ///
    /// # Panics
    /// When there can be none.
    #[must_use]
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = DatabaseConfig::sqlite(&folder.path().join("test.db"));
        Self { config, engine: Engine::Sqlite, folder: Some(folder) }
    }

    /// A schema of its own in the given PostgreSQL database; `None`, with a
    /// line on stderr, where none is given.
    ///
    /// # Panics
    /// Where none is given although `CI=true`.
    #[must_use]
    pub fn postgres() -> Option<Self> {
        let Ok(url) = std::env::var(POSTGRES) else {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "{POSTGRES} is not set: under CI=true the PostgreSQL half must run");
            eprintln!(
                "NOT RUN: the PostgreSQL half; set {POSTGRES} to the URL of a scratch database"
            );
            return None;
        };
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        let config =
            DatabaseConfig { max_connections: 8, ..DatabaseConfig::postgres(&url, &schema) };
        Some(Self { config, engine: Engine::Postgres, folder: None })
    }

    /// One per engine that can be tested here.
    #[must_use]
    pub fn all() -> Vec<Self> {
        std::iter::once(Self::sqlite()).chain(Self::postgres()).collect()
    }

    /// Opens it.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn open<M: MigratorTrait>(&self) -> Store {
        Store::open::<M>(&self.config).await.unwrap_or_else(|error| {
            panic!(
                "{} cannot be opened: {error}: {:?}",
                self.engine,
                std::error::Error::source(&error)
            )
        })
    }

    /// Removes it with all its rows.
    ///
    /// # Panics
    /// When PostgreSQL refuses.
    pub async fn close(self) {
        if let (Engine::Postgres, Some(schema)) = (self.engine, &self.config.schema) {
            let url = self.config.resolved_url().expect("it was opened with it");
            let connection = Database::connect(url).await.expect("a connection to drop the schema");
            let drop = format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE");
            connection.execute_unprepared(&drop).await.expect("the schema is ours");
        }
        drop(self.folder);
    }
}

/// Runs a test once per engine, each on a fresh database, and prints on which.
///
/// # Panics
/// As the test does.
pub async fn each_engine<M, F, Fut>(name: &str, test: F)
where
    M: MigratorTrait,
    F: Fn(Store, DatabaseConfig) -> Fut,
    Fut: Future<Output = ()>,
{
    for database in TestDatabase::all() {
        let store = database.open::<M>().await;
        println!("{name}: on {}", database.engine);
        test(store.clone(), database.config.clone()).await;
        store.close().await.expect("the pool closes");
        database.close().await;
    }
}

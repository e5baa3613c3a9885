//! Opens a database: pool, pragmas, schema, migrations.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};
use sea_orm_migration::MigratorTrait;
use tokio::sync::Semaphore;

use crate::config::DatabaseConfig;
use crate::engine::Engine;
use crate::error::StoreError;
use crate::{sql, time};

/// A statement waits this long for a connection.
const ACQUIRE: Duration = Duration::from_secs(10);
/// SQLite waits this long for another process's write.
const BUSY: Duration = Duration::from_secs(5);
/// PostgreSQL ends a statement after this.
const STATEMENT: Duration = Duration::from_secs(30);
/// `pg_advisory_xact_lock` of everyone who migrates; any fixed number.
const MIGRATION_LOCK: i64 = 0x776f_6c66_7061_636b;

/// An open database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    connection: DatabaseConnection,
    engine: Engine,
    /// SQLite has one writer. Those of this process queue here in order, since
    /// its own busy handler lets some of many writers starve.
    pub(crate) writer: Arc<Semaphore>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database and applies the missing migrations of `M`, all or
    /// none, under a lock: replicas may start together.
    ///
    /// SQLite: a missing file is made with mode 0600; WAL, foreign keys on,
    /// `synchronous=NORMAL` (a killed process loses nothing that was committed,
    /// a power cut may lose the last commits but never damages the file).
    ///
    /// # Errors
    /// When the configuration cannot be used, the database cannot be reached
    /// or a migration fails.
    pub async fn open<M: MigratorTrait>(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let store = Self::connect(config).await?;
        store.migrate::<M>(config.schema.as_deref()).await?;
        Ok(store)
    }

    async fn connect(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let url = config.resolved_url()?;
        let mut options = ConnectOptions::new(url.clone());
        options
            .max_connections(config.max_connections)
            .acquire_timeout(ACQUIRE)
            .sqlx_logging(false)
            .test_before_acquire(false)
            .test_before_acquire_if_idle_for(Duration::from_secs(5));
        let engine = match Engine::of_url(&url) {
            Some(Engine::Postgres) => {
                options.set_application_name("wolfpack").statement_timeout(STATEMENT);
                if let Some(schema) = &config.schema {
                    options.set_schema_search_path(schema.clone());
                }
                Engine::Postgres
            }
            _ => {
                prepare_sqlite(&url, &mut options)?;
                Engine::Sqlite
            }
        };
        let connection = Database::connect(options).await?;
        Ok(Self { connection, engine, writer: Arc::new(Semaphore::new(1)) })
    }

    async fn migrate<M: MigratorTrait>(&self, schema: Option<&str>) -> Result<(), StoreError> {
        // One transaction around all: a failed start leaves the schema as it was.
        let tx = self
            .connection
            .begin_with_options(TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            })
            .await?;
        if self.engine == Engine::Postgres {
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
                .await?;
            if let Some(schema) = schema {
                tx.execute_unprepared(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"")).await?;
            }
        }
        M::up(&tx, None).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The pool, for reads and for single statements. Inside the closure of
    /// [`Store::tx`] use the transaction: the pool may have no connection left.
    #[must_use]
    pub fn conn(&self) -> &DatabaseConnection {
        &self.connection
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The database's clock, in microseconds (SQLite: milliseconds).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn now<C: ConnectionTrait>(
        &self,
        connection: &C,
    ) -> Result<DateTime<Utc>, StoreError> {
        match sql::one(connection, "SELECT {now} AS now", []).await? {
            Some(row) => Ok(time::from_micros(row.try_get("", "now")?)),
            None => Err(StoreError::Damaged("the database has no clock".to_owned())),
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.connection.ping().await?)
    }

    /// Closes the pool, for all clones; waits for connections in use.
    ///
    /// # Errors
    /// When the pool cannot be closed.
    pub async fn close(&self) -> Result<(), StoreError> {
        Ok(self.connection.close_by_ref().await?)
    }
}

fn prepare_sqlite(url: &str, options: &mut ConnectOptions) -> Result<(), StoreError> {
    match sqlite_path(url) {
        Some(path) => make_private(&path)?,
        None => {
            // Every connection to memory is a database of its own, and one that
            // is closed takes its rows with it.
            options
                .max_connections(1)
                .min_connections(1)
                .idle_timeout(None::<Duration>)
                .max_lifetime(None::<Duration>);
        }
    }
    options.map_sqlx_sqlite_opts(|options| {
        options
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
    });
    Ok(())
}

/// The file of a URL; `None` for memory.
fn sqlite_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    (!path.is_empty() && path != ":memory:" && !query.contains("mode=memory"))
        .then(|| PathBuf::from(path))
}

/// Makes the file if it is missing, readable by its owner only; SQLite gives
/// the files beside it the same mode.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::File { path: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_url_is_found() {
        let path = |url| sqlite_path(url).map(|path| path.display().to_string());
        assert_eq!(path("sqlite:///a/b.db").as_deref(), Some("/a/b.db"));
        assert_eq!(path("sqlite:///a/b.db?mode=rwc").as_deref(), Some("/a/b.db"));
        assert_eq!(path("sqlite://rel.db").as_deref(), Some("rel.db"));
        assert_eq!(path("sqlite::memory:"), None);
        assert_eq!(path("sqlite://:memory:"), None);
    }
}

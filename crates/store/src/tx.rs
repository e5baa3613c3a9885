//! The one transaction helper.

use std::error::Error;
use std::time::Duration;

use futures::future::BoxFuture;
use rand::Rng as _;
use sea_orm::{
    DatabaseTransaction, DbErr, IsolationLevel, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::{StoreError, is_conflict};
use crate::open::Store;

/// A transaction is tried this often, and not begun again after this long.
const ATTEMPTS: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(15);

const OPTIONS: TransactionOptions = TransactionOptions {
    isolation_level: Some(IsolationLevel::Serializable),
    access_mode: None,
    sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
};

impl Store {
    /// Runs `work` in a transaction that behaves as if it ran alone: IMMEDIATE
    /// on SQLite, SERIALIZABLE on PostgreSQL. An `Ok` commits, an `Err` rolls
    /// back. When the engine reports a conflict it is run again, with a jitter,
    /// up to 64 times or 15 seconds; then the error is
    /// [`StoreError::Contention`].
    ///
    /// `work` may run several times: it has no effect but through the
    /// transaction. It must not call `tx` again (on SQLite that waits for
    /// itself). Dropping the future rolls back.
    ///
    /// # Errors
    /// What `work` answers, or a [`StoreError`] of the transaction itself.
    pub async fn tx<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send,
        E: From<StoreError> + Error + Send + 'static,
        F: for<'c> Fn(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send + Sync,
    {
        let begin = Instant::now();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let conflict: Box<dyn Error + Send + Sync> = match self.attempt(&work).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) if !is_conflict(&error) => return Err(error),
                // E need not be Sync; its words are enough for the log.
                Ok(Err(error)) => error.to_string().into(),
                Err(error) if !is_conflict(&error) => return Err(StoreError::from(error).into()),
                Err(error) => error.into(),
            };
            if attempt >= ATTEMPTS || begin.elapsed() >= PATIENCE {
                return Err(StoreError::Contention { attempts: attempt, source: conflict }.into());
            }
            tracing::debug!(attempt, %conflict, "a transaction met a conflict; it runs again");
            tokio::time::sleep(pause(attempt)).await;
        }
    }

    /// One run. The outer error is the transaction's own, the inner the work's.
    async fn attempt<T, E, F>(&self, work: &F) -> Result<Result<T, E>, DbErr>
    where
        F: for<'c> Fn(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send + Sync,
    {
        let _turn = match self.engine() {
            // The semaphore is never closed.
            Engine::Sqlite => self.writer.acquire().await.ok(),
            Engine::Postgres => None,
        };
        let tx = self.conn().begin_with_options(options(self.engine())).await?;
        match work(&tx).await {
            Ok(done) => {
                tx.commit().await?;
                Ok(Ok(done))
            }
            Err(error) => {
                // What the work said counts; a rollback that fails ends the
                // connection and with it the transaction.
                if let Err(rollback) = tx.rollback().await {
                    tracing::warn!(error = %rollback, "a rollback failed");
                }
                Ok(Err(error))
            }
        }
    }
}

fn options(engine: Engine) -> TransactionOptions {
    match engine {
        // SQLite is serializable by nature; naming a level only draws a warning.
        Engine::Sqlite => TransactionOptions { isolation_level: None, ..OPTIONS },
        Engine::Postgres => OPTIONS,
    }
}

/// Full jitter up to a bound that doubles from 4 ms to 256 ms.
fn pause(attempt: u32) -> Duration {
    let bound = Duration::from_millis(4 << attempt.saturating_sub(1).min(6));
    rand::rng().random_range(Duration::ZERO..=bound)
}

//! What can go wrong with the store.

use sea_orm::{DbErr, RuntimeErr};
use wolfpack_types::{Fault, Reason};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The file or folder of a SQLite database cannot be used.
    #[error("the database file {path} cannot be used")]
    File {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A statement failed.
    #[error("the database refused a statement")]
    Db(#[from] DbErr),
    /// A row has what it must not have.
    #[error("a row is damaged: {0}")]
    Damaged(String),
    /// Others changed the same rows again and again; try again later.
    #[error("a transaction met conflicts for {attempts} attempts")]
    Contention {
        /// How often it was tried.
        attempts: u32,
        /// The last conflict.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the database cannot be reached now, or has no connection free.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Db(DbErr::ConnectionAcquire(_) | DbErr::Conn(_)) => true,
            Self::Db(DbErr::Exec(error) | DbErr::Query(error)) => is_connection_lost(error),
            Self::Db(_)
            | Self::Config(_)
            | Self::File { .. }
            | Self::Damaged(_)
            | Self::Contention { .. } => false,
        }
    }

    /// Whether a unique key was violated.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        match self {
            Self::Db(error) => {
                matches!(error.sql_err(), Some(sea_orm::SqlErr::UniqueConstraintViolation(_)))
            }
            Self::Config(_) | Self::File { .. } | Self::Damaged(_) | Self::Contention { .. } => {
                false
            }
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Contention { .. }) {
            Self::new(Reason::Overloaded, "too many calls change the same thing; try again shortly")
                .caused_by(error)
        } else if error.is_unavailable() {
            Self::new(
                Reason::DependencyUnavailable,
                "the database does not answer; try again shortly",
            )
            .caused_by(error)
        } else {
            Self::internal(error)
        }
    }
}

/// Whether the engine asks to run the transaction again: serialization failure
/// or deadlock on PostgreSQL, a busy or locked file on SQLite. The whole chain
/// of sources is looked at, so a service's own error type may wrap it.
pub(crate) fn is_conflict(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let runtime = match error.downcast_ref::<DbErr>() {
            Some(DbErr::Exec(error) | DbErr::Query(error) | DbErr::Conn(error)) => Some(error),
            Some(_) => None,
            None => error.downcast_ref::<RuntimeErr>(),
        };
        if runtime.is_some_and(is_conflict_code) {
            return true;
        }
        // A transparent wrapper answers its inner error's source, so that the
        // inner error itself is not in the chain.
        if let Some(StoreError::Db(inner)) = error.downcast_ref::<StoreError>()
            && is_conflict(inner)
        {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_conflict_code(error: &RuntimeErr) -> bool {
    let RuntimeErr::SqlxError(error) = error else { return false };
    let Some(code) = error.as_database_error().and_then(sea_orm::sqlx::error::DatabaseError::code)
    else {
        return false;
    };
    match code.as_ref() {
        // PostgreSQL: serialization_failure, deadlock_detected.
        "40001" | "40P01" => true,
        // SQLite's extended codes carry the primary one in the low byte.
        other => {
            matches!(other.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6)) && other.len() < 5
        }
    }
}

fn is_connection_lost(error: &RuntimeErr) -> bool {
    use sea_orm::sqlx::Error;
    match error {
        RuntimeErr::SqlxError(error) => matches!(
            error.as_ref(),
            Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed
        ),
        RuntimeErr::Internal(_) => false,
    }
}

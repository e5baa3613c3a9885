//! Why a query did not do what it was asked for.

use sea_orm::{DbErr, SqlErr};
use wolfpack_store::StoreError;
use wolfpack_store::idempotency::IdempotencyError;
use wolfpack_types::{Fault, Reason};

use crate::store::sandbox::DamagedRow;

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A caller must change something: the fault says what.
    #[error(transparent)]
    Refused(#[from] Fault),
    /// The row changed since it was read, or has another owner: read it again.
    #[error("the row changed since it was read")]
    Conflict,
    /// A row cannot be read.
    #[error(transparent)]
    Damaged(#[from] DamagedRow),
    /// The database failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            // The one unique index that the checks before it can lose a race to.
            Some(SqlErr::UniqueConstraintViolation(_)) => Self::Refused(name_taken()),
            _ => Self::Store(StoreError::from(error)),
        }
    }
}

impl From<IdempotencyError> for Error {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Reused => Self::Refused(Fault::new(
                Reason::RequestIdReused,
                "this request id was used with another body; make a fresh one",
            )),
            IdempotencyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(fault) => fault,
            Error::Conflict => Self::new(
                Reason::EtagMismatch,
                "the sandbox changed at the same time; read it again and retry",
            ),
            Error::Damaged(error) => Self::internal(error),
            Error::Store(error) => Self::from(error),
        }
    }
}

/// Another live sandbox of the project has the name.
pub(super) fn name_taken() -> Fault {
    Fault::new(
        Reason::DisplayNameTaken,
        "another live sandbox of the project has this display name; delete it or choose another",
    )
    .violates("sandbox.display_name", "is taken")
}

/// There is no such sandbox in the project.
pub(crate) fn not_found(name: &str) -> Fault {
    Fault::new(Reason::SandboxNotFound, "there is no such sandbox in the project").about(name)
}

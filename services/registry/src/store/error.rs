//! What can go wrong at the database.

use sea_orm::DbErr;
use wolfpack_store::StoreError;
use wolfpack_types::Fault;

/// The database failed, or what it holds forbids the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The request is refused; nothing was written.
    #[error("{0}")]
    Refused(Box<Fault>),
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Refused(Box::new(fault))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Refused(fault) => *fault,
        }
    }
}

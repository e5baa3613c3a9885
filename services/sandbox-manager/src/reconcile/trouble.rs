//! Why a step was not done.

use wolfpack_types::Fault;

use crate::domain::IllegalTransition;
use crate::store::Error;

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The row was written or claimed by another: read it again.
    Changed,
    /// Something did not work: try again later.
    Failed(Fault),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Conflict => Self::Changed,
            other => Self::Failed(other.into()),
        }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl From<IllegalTransition> for Trouble {
    fn from(error: IllegalTransition) -> Self {
        Self::Failed(Fault::internal(error))
    }
}

impl From<tonic::Status> for Trouble {
    fn from(status: tonic::Status) -> Self {
        Self::Failed(wolfpack_rpc::error::from_status(&status))
    }
}

//! The one suite both engines must pass.

mod conformance {
    pub(crate) mod idempotency;
    pub(crate) mod lease;
    pub(crate) mod migration;
    pub(crate) mod revision;
    pub(crate) mod rows;
    pub(crate) mod transaction;
}

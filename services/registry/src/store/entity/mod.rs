//! The rows, as sea-orm sees them.

pub(crate) mod api_key;
pub(crate) mod join_token;
pub(crate) mod member;
pub(crate) mod project;
pub(crate) mod revocation;
pub(crate) mod setting;
pub(crate) mod signing_key;
pub(crate) mod user;
pub(crate) mod wolf;

//! What the registry decides, without IO: liveness, the form of keys and
//! tokens, and who may see and do what.

pub mod access;
pub mod api_key;
pub mod health;
pub mod join_token;
pub mod pepper;
pub mod time;

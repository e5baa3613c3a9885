//! The fleet as the registry tells it.

mod facts;
mod feed;
mod health;

pub use facts::facts;
pub(crate) use facts::{codec, docker_mode, vendor};
pub use feed::Feed;
pub use health::FleetHealth;

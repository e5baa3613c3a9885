//! The fleet as the registry tells it.

mod facts;
mod feed;
mod health;

pub(crate) use facts::vendor;
pub use facts::facts;
pub use feed::Feed;
pub use health::FleetHealth;

//! What the broker hears from the registry.

mod revocations;
mod wolves;

pub use revocations::follow as follow_revocations;
pub use wolves::follow as follow_wolves;

//! The broker's part of a connection: two HTTP bodies that read each other.
//! There is no task and no queue between them; each is polled by the stream it
//! answers, and passes frames on as they came.

mod again;
mod carry;
mod client;
mod link;
mod relay;
mod socket;
mod throttle;

pub use again::Park;
pub use carry::{CallerStream, CarryAnswer, CarryBody, CarryStream, Opening};
pub use link::{Direction, Link, LinkEnd, Totals, WeakLink};
pub use relay::RelayBody;
pub use throttle::Throttle;

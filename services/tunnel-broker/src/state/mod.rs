//! The tunnels of this broker: who is attached, what is parked, who waits.

mod admission;
mod broker;
mod events;
mod limits;
mod owners;
mod session;
mod turns;
mod waiting;

pub use broker::Broker;
pub(crate) use broker::Counted;
pub use events::{Change, TunnelEvent, Watch};
pub use limits::Limits;
pub(crate) use session::CONTROL_QUEUE;
pub use session::{AskedDial, Permit, Session, SessionSpec};

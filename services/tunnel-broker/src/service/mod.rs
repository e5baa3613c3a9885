//! The rpcs of the broker: check, then ask the state.

mod attach;
mod audit;
mod carry;
mod dial;
mod dialing;
mod raw;
mod tunnels;

pub use attach::AttachMethod;
pub use carry::CarryMethod;
pub use dial::DialMethod;
pub use raw::{Method, Raw};
pub use tunnels::Tunnels;

//! The rpcs of the broker: check, then ask the state.

mod attach;
mod carry;
mod dial;
mod exposures;
mod raw;
mod small_codec;
mod tunnels;

pub use attach::AttachMethod;
pub use carry::CarryMethod;
pub use dial::DialMethod;
pub use exposures::ExposureRpcs;
pub use raw::{Method, Raw};
pub use tunnels::Tunnels;

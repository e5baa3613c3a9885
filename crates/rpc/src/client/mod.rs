//! How every client calls: a lazy channel that reconnects, with deadlines,
//! identity checks, trace context and request ids.

mod bearer;
mod channel;
mod connector;
mod cut;
mod response;
mod retry;

pub use bearer::Bearer;
pub use channel::{ChannelError, PeerConfig, RpcChannel};
pub use cut::RequestCut;
pub use response::{CERTIFICATE_EXPIRED, NAME_DIFFERS, NOT_TLS, SELF_SIGNED, TLS, UNKNOWN_ISSUER};
pub use retry::retry;

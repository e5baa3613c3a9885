//! The tunnel: a listener agents `accept()` from, and a byte stream dialers
//! hold.
//!
//! An agent dials out to a broker and *attaches*; callers *dial* a target of
//! its endpoint through the broker, and the agent serves the connection as if
//! it had listened. See `docs/architecture.md` for the three protocols.
//!
//! * [`AgentTunnel`] is the agent's side, [`Dialer`] the caller's; [`Dial`] is what
//!   both it and others like it are.
//! * [`tcp`] is what an agent lets be dialed of TCP ports, by its own policy.
//! * [`splice`] and [`grpc`] are what a broker is made of.
//! * [`protocol`] is the pure core of all three.

pub mod agent;
mod dial;
pub mod dialer;
pub mod grpc;
pub mod life;
pub mod protocol;
pub mod reasons;
pub mod splice;
mod stream;
pub mod tcp;

pub use agent::{
    AgentTunnel, AgentTunnelConfig, BrokerAt, Builder, TargetDialer, TargetStream, TunnelIo,
    TunnelListener, TunnelPeer,
};
pub use dial::{Destination, Dial};
pub use dialer::{Dialer, TunnelStream};

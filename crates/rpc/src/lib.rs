//! How every gRPC server of Wolfpack listens and every client calls: accept
//! path, TLS with reload, deadlines, identity and policy, errors to statuses,
//! health, reflection, metrics and drain.
//!
//! - [`server`]: [`server::Server`] with its listeners and layers.
//! - [`client`]: [`client::RpcChannel`], which generated clients are made of.
//! - [`policy`]: who may call what, one row per rpc.
//! - [`auth`]: from a credential to a [`wolfpack_types::Principal`].
//! - [`request`]: what a handler learns about its call.
//! - [`error`]: a [`wolfpack_types::Fault`] to a status and back.
//! - [`forward`]: passing a call on as it came.
//! - [`tls`]: certificates and roots from files that change.

pub mod auth;
mod call;
pub mod client;
mod coalesce;
pub mod error;
pub mod forward;
mod h2;
pub mod policy;
pub mod request;
pub mod server;
mod timeout;
pub mod tls;

pub use auth::{Authority, RemoteAuthority, SandboxClaims};
pub use client::{ChannelError, PeerConfig, RequestCut, RpcChannel};
pub use error::{from_status, to_status};
pub use forward::Forward;
pub use h2::{ByteBudget, Hold};
pub use policy::{Allow, PolicyRow, RpcKind};
pub use request::{Caller, caller, check, checked};
pub use server::{
    BoundListener, HealthHandle, ListenConfig, ListenError, Peer, Profile, Server, ServerBuilder,
    StreamCut,
};
pub use tls::{ClientAuth, ClientTls, ServerTls, TlsConfig, TlsError};

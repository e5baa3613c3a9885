//! How every gRPC server listens: accept path, layers, health, reflection and
//! a bounded drain.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use wolfpack_rpc::{auth::Authority, policy::PolicyRow, server::*};
//! # async fn example<S>(
//! #     context: &wolfpack_runtime::Context, policy: &'static [PolicyRow],
//! #     authority: Arc<dyn Authority>, listen: ListenConfig,
//! # ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let listener = listen.bind().await?;
//! let server = Server::builder(context, policy, authority)
//!     .descriptor_set(wolfpack_proto::DESCRIPTOR_SET)
//!     // .add_service(WolfServiceServer::new(...))
//!     .listen(listener, Profile::internal())
//!     .build();
//! server.serve().await?;
//! # Ok(()) }
//! ```

mod accept;
mod address_rate;
pub mod admin;
mod body;
mod builder;
mod connection;
mod cut;
mod dispatch;
mod drain;
mod health;
mod ingress;
mod io;
pub(crate) mod layers;
mod listen;
mod metrics;
mod profile;
mod reflection;
mod reload;
mod serve;
mod shared;
mod shares;
pub(crate) mod socket;
mod stack;
mod whole;

pub use address_rate::AddressRate;
pub use builder::ServerBuilder;
pub use cut::StreamCut;
pub use health::HealthHandle;
pub use ingress::Ingress;
pub(crate) use io::BoxIo;
pub use layers::trace::request_id;
pub use listen::{BoundListener, ListenConfig, ListenError};
pub(crate) use metrics::code_name;
pub use profile::{Profile, RateLimit};
pub use serve::Server;
pub use shared::Peer;
pub use socket::{tune, tune_raw};
pub use whole::whole;

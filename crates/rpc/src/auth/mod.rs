//! Who a caller is: a bearer (API key, sandbox token or link), else the client
//! certificate, else nobody.

mod authority;
mod claims;
mod credential;
mod link;
mod remote;
mod revocations;
mod signed;
mod signing_keys;
mod standing;
mod verified;

pub use authority::Authority;
pub use claims::{AUDIENCE, MAX_TOKEN_LIFE, SandboxClaims};
pub(crate) use credential::{ON_BEHALF_OF, Peer as PeerIdentity, identify, shows_nothing};
pub use link::{LINK_AUDIENCE, LINK_PREFIX, LinkClaims, MAX_LINK_LIFE};
pub use remote::RemoteAuthority;
pub use standing::{Standing, Standings};
pub use verified::TokenVerifier;

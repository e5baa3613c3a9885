//! How a wolf becomes one: a join token and a key pair are traded once for a
//! certificate, which is kept, reused and renewed.

mod client;
mod identity;
mod token;

pub use client::{join, keep_renewed};
pub use identity::{IdentityStore, Issued, WolfIdentity};
pub use token::{JoinToken, NotAJoinToken};

#[cfg(test)]
mod tests;

//! What answers for secrets that callers send.

use async_trait::async_trait;
use wolfpack_types::{Fault, Principal};

/// Turns a bearer into a principal. The registry has one over its own store,
/// the other services use [`super::RemoteAuthority`].
#[async_trait]
pub trait Authority: Send + Sync {
    /// Whose API key this is.
    ///
    /// # Errors
    /// `API_KEY_INVALID` for one that is unknown, expired or revoked; anything
    /// else when it cannot be told now.
    async fn api_key(&self, key: &str) -> Result<Principal, Fault>;

    /// Which sandbox this token names.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_INVALID` and `SANDBOX_TOKEN_REVOKED`; anything else when
    /// it cannot be told now.
    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault>;
}

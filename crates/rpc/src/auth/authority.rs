//! What answers for secrets that callers send.

use async_trait::async_trait;
use wolfpack_types::{Fault, Principal, Reason};

use super::Standing;

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

    /// Which port of which sandbox this link opens. Refused by default: only who
    /// dials for others takes links.
    ///
    /// # Errors
    /// `LINK_INVALID`; anything else when it cannot be told now.
    async fn link(&self, _link: &str) -> Result<Principal, Fault> {
        Err(Fault::new(
            Reason::LinkInvalid,
            "a link opens one port of a sandbox over HTTP and nothing else; use an api key",
        ))
    }

    /// Follows the credential of a principal that was just authenticated: the
    /// server ends the principal's streams when it is revoked. `None`, the
    /// default, where nothing is heard of revocations; handlers then look for
    /// themselves.
    fn standing(&self, _principal: &Principal) -> Option<Standing> {
        None
    }
}

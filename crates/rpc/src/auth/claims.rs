//! The sandbox token: a JWT, EdDSA, that names one boot of one sandbox and
//! nothing else. The registry signs it, everyone verifies it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::EncodingKey;
use serde::{Deserialize, Serialize};
use wolfpack_types::{ExecutionId, Fault, Principal, ProjectId, Reason, SandboxId};

use super::signed::{self, Signed};

/// The audience of every sandbox token.
pub const AUDIENCE: &str = "wolfpack-sandbox";

/// No token lives longer. Verifiers keep a revocation for as long, so it can
/// never outlive its token.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What a sandbox token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxClaims {
    /// `sandboxes/{id}`.
    pub sub: String,
    /// `projects/{id}` that owns it.
    pub prj: String,
    /// The execution: one boot of the sandbox.
    pub exe: String,
    /// [`AUDIENCE`].
    pub aud: String,
    /// Seconds since 1970 at which it was issued.
    pub iat: u64,
    /// Seconds since 1970 at which it ends.
    pub exp: u64,
}

impl SandboxClaims {
    /// Claims for one boot, from now on for `life`, at most [`MAX_TOKEN_LIFE`].
    #[must_use]
    pub fn new(
        sandbox: &SandboxId,
        project: &ProjectId,
        execution: &ExecutionId,
        now: SystemTime,
        life: Duration,
    ) -> Self {
        let iat = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            sub: sandbox.name(),
            prj: project.name(),
            exe: execution.as_str().to_owned(),
            aud: AUDIENCE.to_owned(),
            iat,
            exp: iat + life.min(MAX_TOKEN_LIFE).as_secs(),
        }
    }

    /// Signs them under a key id.
    ///
    /// # Errors
    /// `INTERNAL` when the key is not an Ed25519 key.
    pub fn sign(&self, key_id: &str, key: &EncodingKey) -> Result<String, Fault> {
        signed::sign(self, key_id, key)
    }

    /// The key id that a token says it was signed under; not verified.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_INVALID` when it is no such token.
    pub fn key_id(token: &str) -> Result<String, Fault> {
        signed::key_id::<Self>(token)
    }

    /// Verifies a token with the 32 bytes of the Ed25519 public key it was
    /// signed under. Does not know of revocations.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_INVALID`.
    pub fn verify(token: &str, public_key: &[u8; 32]) -> Result<Self, Fault> {
        signed::verify(token, public_key)
    }

    /// The sandbox that the claims name.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_INVALID` when a name does not parse.
    pub fn principal(&self) -> Result<Principal, Fault> {
        Ok(Principal::Sandbox {
            sandbox: SandboxId::from_name(&self.sub).map_err(Self::invalid)?,
            project: ProjectId::from_name(&self.prj).map_err(Self::invalid)?,
            execution: ExecutionId::parse(&self.exe).map_err(Self::invalid)?,
        })
    }
}

impl Signed for SandboxClaims {
    const AUDIENCE: &'static str = AUDIENCE;
    const PREFIX: &'static str = "";
    const MOST_LIFE: Duration = MAX_TOKEN_LIFE;

    fn life(&self) -> u64 {
        self.exp.saturating_sub(self.iat)
    }

    fn audience(&self) -> &str {
        &self.aud
    }

    fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
        Fault::new(
            Reason::SandboxTokenInvalid,
            "the sandbox token is not valid; read it again from /run/wolfpack, or start the sandbox anew",
        )
        .caused_by(cause)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use super::signed::tests::{key, only_good_ones_pass};

    fn claims(life: Duration) -> SandboxClaims {
        SandboxClaims::new(
            &SandboxId::new(),
            &ProjectId::new(),
            &ExecutionId::new(),
            SystemTime::now(),
            life,
        )
    }

    /// A token that lives so long, and the key that verifies it.
    pub(in crate::auth) fn signed(life: Duration) -> (String, [u8; 32]) {
        let (private, public) = key();
        (claims(life).sign("k1", &private).unwrap(), public)
    }

    #[test]
    fn a_signed_token_names_its_sandbox_and_everything_else_is_refused() {
        let claims = claims(Duration::from_secs(60));
        only_good_ones_pass(&claims, |claims, audience, seconds| SandboxClaims {
            aud: audience.to_owned(),
            exp: claims.exp.saturating_add_signed(seconds),
            ..claims.clone()
        });
        assert_eq!(claims.principal().unwrap().to_string(), claims.sub);
        assert!(SandboxClaims { sub: "wolves/abc".into(), ..claims }.principal().is_err());
    }
}

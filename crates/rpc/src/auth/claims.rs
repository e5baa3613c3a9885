//! The sandbox token: a JWT, EdDSA, that names one boot of one sandbox and
//! nothing else. The registry signs it, everyone verifies it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::{Deserialize, Serialize};
use wolfpack_types::{ExecutionId, Fault, Principal, ProjectId, Reason, SandboxId};

/// The audience of every sandbox token.
pub const AUDIENCE: &str = "wolfpack-sandbox";

/// No token lives longer. Verifiers keep a revocation for as long, so it can
/// never outlive its token.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Clocks of a fleet differ by this much.
const LEEWAY: u64 = 30;

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
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key_id.to_owned());
        encode(&header, self, key).map_err(Fault::internal)
    }

    /// The key id that a token says it was signed under; not verified.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_INVALID` when it is no such token.
    pub fn key_id(token: &str) -> Result<String, Fault> {
        let header = decode_header(token).map_err(invalid)?;
        if header.alg != Algorithm::EdDSA {
            return Err(invalid("not signed by EdDSA"));
        }
        header.kid.ok_or_else(|| invalid("no key id"))
    }

    /// Verifies a token with the 32 bytes of the Ed25519 public key it was
    /// signed under. Does not know of revocations.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_INVALID`.
    pub fn verify(token: &str, public_key: &[u8; 32]) -> Result<Self, Fault> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.leeway = LEEWAY;
        let key = DecodingKey::from_ed_der(public_key);
        let claims = decode::<Self>(token, &key, &validation).map_err(invalid)?.claims;
        if claims.exp.saturating_sub(claims.iat) > MAX_TOKEN_LIFE.as_secs() {
            return Err(invalid("it lives too long"));
        }
        Ok(claims)
    }

    /// The sandbox that the claims name.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_INVALID` when a name does not parse.
    pub fn principal(&self) -> Result<Principal, Fault> {
        Ok(Principal::Sandbox {
            sandbox: SandboxId::from_name(&self.sub).map_err(invalid)?,
            project: ProjectId::from_name(&self.prj).map_err(invalid)?,
            execution: ExecutionId::parse(&self.exe).map_err(invalid)?,
        })
    }
}

/// One answer for all ways in which a token can be wrong.
fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(
        Reason::SandboxTokenInvalid,
        "the sandbox token is not valid; read it again from /run/wolfpack, or start the sandbox anew",
    )
    .caused_by(cause)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    fn key() -> (EncodingKey, [u8; 32]) {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        (EncodingKey::from_ed_der(pkcs8.as_ref()), pair.public_key().as_ref().try_into().unwrap())
    }

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
    fn a_signed_token_names_its_sandbox() {
        let (private, public) = key();
        let claims = claims(Duration::from_secs(60));
        let token = claims.sign("k1", &private).unwrap();
        assert_eq!(SandboxClaims::key_id(&token).unwrap(), "k1");
        assert_eq!(SandboxClaims::verify(&token, &public).unwrap(), claims);
        assert_eq!(claims.principal().unwrap().to_string(), claims.sub);
    }

    #[test]
    fn everything_else_is_refused() {
        let (private, public) = key();
        let good = claims(Duration::from_secs(60));
        let refused = |token: &str| {
            let error = SandboxClaims::verify(token, &public).unwrap_err();
            assert_eq!(error.reason, Reason::SandboxTokenInvalid, "{token}");
        };
        refused("");
        refused("a.b.c");
        refused(&good.sign("k1", &key().0).unwrap());
        let mut changed = good.clone();
        changed.aud = "another".into();
        refused(&changed.sign("k1", &private).unwrap());
        let mut expired = good.clone();
        expired.exp = expired.iat - 3600;
        refused(&expired.sign("k1", &private).unwrap());
        let mut eternal = good.clone();
        eternal.exp += 10 * MAX_TOKEN_LIFE.as_secs();
        refused(&eternal.sign("k1", &private).unwrap());
        // The classic: another algorithm, keyed with the public key.
        let hmac =
            encode(&Header::new(Algorithm::HS256), &good, &EncodingKey::from_secret(&public))
                .unwrap();
        refused(&hmac);
        assert!(SandboxClaims::key_id(&hmac).is_err());
        let mut odd = good;
        odd.sub = "wolves/abc".into();
        assert!(odd.principal().is_err());
    }
}

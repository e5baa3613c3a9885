//! The link: a JWT, EdDSA, that opens one port of one sandbox until it ends.
//! The registry signs it, the tunnel-broker alone accepts it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::{Deserialize, Serialize};
use wolfpack_types::{Fault, Principal, ProjectId, Reason, SandboxId, UserId};

/// The audience of every link: a token for anything else is none, and a link is
/// no other token.
pub const LINK_AUDIENCE: &str = "wolfpack-link";

/// What every link begins with, so that it is known as one where it turns up.
pub const LINK_PREFIX: &str = "wpl_";

/// No link lives longer.
pub const MAX_LINK_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Clocks of a fleet differ by this much.
const LEEWAY: u64 = 30;

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkClaims {
    /// `sandboxes/{id}`.
    pub sub: String,
    /// The port, 1 to 65535.
    pub prt: u16,
    /// `projects/{id}` that owns the sandbox.
    pub prj: String,
    /// `users/{id}` that made the link.
    pub cre: String,
    /// [`LINK_AUDIENCE`].
    pub aud: String,
    /// Seconds since 1970 at which it was issued.
    pub iat: u64,
    /// Seconds since 1970 at which it ends.
    pub exp: u64,
}

impl LinkClaims {
    /// Claims for one port, from `now` on for `life`, at most [`MAX_LINK_LIFE`].
    #[must_use]
    pub fn new(
        sandbox: &SandboxId,
        port: u16,
        project: &ProjectId,
        creator: &UserId,
        now: SystemTime,
        life: Duration,
    ) -> Self {
        let iat = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            sub: sandbox.name(),
            prt: port,
            prj: project.name(),
            cre: creator.name(),
            aud: LINK_AUDIENCE.to_owned(),
            iat,
            exp: iat + life.min(MAX_LINK_LIFE).as_secs(),
        }
    }

    /// Signs them under a key id.
    ///
    /// # Errors
    /// `INTERNAL` when the key is not an Ed25519 key.
    pub fn sign(&self, key_id: &str, key: &EncodingKey) -> Result<String, Fault> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key_id.to_owned());
        let token = encode(&header, self, key).map_err(Fault::internal)?;
        Ok(format!("{LINK_PREFIX}{token}"))
    }

    /// What a link says of itself, nothing verified: to tell early what cannot
    /// be good, never to let anyone in.
    ///
    /// # Errors
    /// `LINK_INVALID` when it is no link.
    pub fn unverified(link: &str) -> Result<Self, Fault> {
        let claims = jsonwebtoken::dangerous::insecure_decode::<Self>(token(link)?);
        let claims = claims.map_err(invalid)?.claims;
        if claims.aud == LINK_AUDIENCE { Ok(claims) } else { Err(invalid("another audience")) }
    }

    /// The key id that a link says it was signed under; not verified.
    ///
    /// # Errors
    /// `LINK_INVALID` when it is no link.
    pub fn key_id(link: &str) -> Result<String, Fault> {
        let header = decode_header(token(link)?).map_err(invalid)?;
        if header.alg != Algorithm::EdDSA {
            return Err(invalid("not signed by EdDSA"));
        }
        header.kid.ok_or_else(|| invalid("no key id"))
    }

    /// Verifies a link with the 32 bytes of the Ed25519 public key it was signed
    /// under.
    ///
    /// # Errors
    /// `LINK_INVALID`.
    pub fn verify(link: &str, public_key: &[u8; 32]) -> Result<Self, Fault> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[LINK_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        validation.leeway = LEEWAY;
        let key = DecodingKey::from_ed_der(public_key);
        let claims = decode::<Self>(token(link)?, &key, &validation).map_err(invalid)?.claims;
        if claims.exp.saturating_sub(claims.iat) > MAX_LINK_LIFE.as_secs() {
            return Err(invalid("it lives too long"));
        }
        Ok(claims)
    }

    /// Whom the claims let in.
    ///
    /// # Errors
    /// `LINK_INVALID` when a name does not parse.
    pub fn principal(&self) -> Result<Principal, Fault> {
        if self.prt == 0 {
            return Err(invalid("no port"));
        }
        Ok(Principal::Link {
            sandbox: SandboxId::from_name(&self.sub).map_err(invalid)?,
            port: self.prt,
            project: ProjectId::from_name(&self.prj).map_err(invalid)?,
            creator: UserId::from_name(&self.cre).map_err(invalid)?,
            expires: UNIX_EPOCH + Duration::from_secs(self.exp.saturating_add(LEEWAY)),
        })
    }
}

fn token(link: &str) -> Result<&str, Fault> {
    link.strip_prefix(LINK_PREFIX).ok_or_else(|| invalid("it does not begin as a link"))
}

/// One answer for all ways in which a link can be wrong.
fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    wrong_link().caused_by(cause)
}

/// What whoever comes with a link that does not work is told.
pub(super) fn wrong_link() -> Fault {
    Fault::new(
        Reason::LinkInvalid,
        "the link is damaged, has ended, or is for another port or sandbox; ask for a fresh one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::KeyPair as _;
    use wolfpack_types::ExecutionId;

    use super::super::SandboxClaims;

    fn key() -> (EncodingKey, [u8; 32]) {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        (EncodingKey::from_ed_der(pkcs8.as_ref()), pair.public_key().as_ref().try_into().unwrap())
    }

    fn claims() -> LinkClaims {
        let (sandbox, project, user) = (SandboxId::new(), ProjectId::new(), UserId::new());
        let hour = Duration::from_secs(3600);
        LinkClaims::new(&sandbox, 8080, &project, &user, SystemTime::now(), hour)
    }

    #[test]
    fn a_signed_link_names_its_port() {
        let (private, public) = key();
        let claims = claims();
        let link = claims.sign("k1", &private).unwrap();
        assert_eq!(LinkClaims::key_id(&link).unwrap(), "k1");
        assert_eq!(LinkClaims::verify(&link, &public).unwrap(), claims);
        assert_eq!(LinkClaims::unverified(&link).unwrap(), claims);
        let Principal::Link { sandbox, port, .. } = claims.principal().unwrap() else {
            panic!("another principal")
        };
        assert_eq!((sandbox.name(), port), (claims.sub, 8080));
    }

    #[test]
    fn everything_else_is_refused() {
        let (private, public) = key();
        let good = claims();
        let refused = |link: &str| {
            let error = LinkClaims::verify(link, &public).unwrap_err();
            assert_eq!(error.reason, Reason::LinkInvalid, "{link}");
        };
        refused("");
        refused("wpl_");
        refused("wpl_a.b.c");
        let link = good.sign("k1", &private).unwrap();
        refused(&link[LINK_PREFIX.len()..]);
        refused(&good.sign("k1", &key().0).unwrap());
        let mut changed = good.clone();
        changed.aud = "another".into();
        refused(&changed.sign("k1", &private).unwrap());
        let mut expired = good.clone();
        expired.exp = expired.iat - 3600;
        refused(&expired.sign("k1", &private).unwrap());
        let mut eternal = good.clone();
        eternal.exp += 10 * MAX_LINK_LIFE.as_secs();
        refused(&eternal.sign("k1", &private).unwrap());
        let hmac =
            encode(&Header::new(Algorithm::HS256), &good, &EncodingKey::from_secret(&public))
                .unwrap();
        refused(&format!("wpl_{hmac}"));
        assert!(LinkClaims::key_id(&format!("wpl_{hmac}")).is_err());
        let mut nowhere = good;
        nowhere.prt = 0;
        assert!(nowhere.principal().is_err());
    }

    #[test]
    fn a_link_is_no_sandbox_token_and_the_other_way_round() {
        let (private, public) = key();
        let link = claims().sign("k1", &private).unwrap();
        assert!(SandboxClaims::verify(&link, &public).is_err());
        assert!(SandboxClaims::verify(&link[LINK_PREFIX.len()..], &public).is_err());
        let sandbox = SandboxClaims::new(
            &SandboxId::new(),
            &ProjectId::new(),
            &ExecutionId::new(),
            SystemTime::now(),
            Duration::from_secs(60),
        );
        let token = sandbox.sign("k1", &private).unwrap();
        assert!(LinkClaims::verify(&format!("wpl_{token}"), &public).is_err());
        assert!(LinkClaims::unverified(&format!("wpl_{token}")).is_err());
    }
}

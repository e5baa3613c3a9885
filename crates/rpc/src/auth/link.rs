//! The link: a JWT, EdDSA, that opens one port of one sandbox until it ends.
//! The registry signs it, the tunnel-broker alone accepts it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::EncodingKey;
use serde::{Deserialize, Serialize};
use wolfpack_types::{Fault, Principal, ProjectId, Reason, SandboxId, UserId};

use super::signed::{self, LEEWAY, Signed};

/// The audience of every link: a token for anything else is none, and a link is
/// no other token.
pub const LINK_AUDIENCE: &str = "wolfpack-link";

/// What every link begins with, so that it is known as one where it turns up.
pub const LINK_PREFIX: &str = "wpl_";

/// No link lives longer.
pub const MAX_LINK_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

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
        signed::sign(self, key_id, key)
    }

    /// What a link says of itself, nothing verified: to tell early what cannot
    /// be good, never to let anyone in.
    ///
    /// # Errors
    /// `LINK_INVALID` when it is no link.
    pub fn unverified(link: &str) -> Result<Self, Fault> {
        signed::unverified(link)
    }

    /// The key id that a link says it was signed under; not verified.
    ///
    /// # Errors
    /// `LINK_INVALID` when it is no link.
    pub fn key_id(link: &str) -> Result<String, Fault> {
        signed::key_id::<Self>(link)
    }

    /// Verifies a link with the 32 bytes of the Ed25519 public key it was signed
    /// under.
    ///
    /// # Errors
    /// `LINK_INVALID`.
    pub fn verify(link: &str, public_key: &[u8; 32]) -> Result<Self, Fault> {
        signed::verify(link, public_key)
    }

    /// Whom the claims let in.
    ///
    /// # Errors
    /// `LINK_INVALID` when a name does not parse.
    pub fn principal(&self) -> Result<Principal, Fault> {
        if self.prt == 0 {
            return Err(Self::invalid("no port"));
        }
        Ok(Principal::Link {
            sandbox: SandboxId::from_name(&self.sub).map_err(Self::invalid)?,
            port: self.prt,
            project: ProjectId::from_name(&self.prj).map_err(Self::invalid)?,
            creator: UserId::from_name(&self.cre).map_err(Self::invalid)?,
            expires: UNIX_EPOCH + Duration::from_secs(self.exp.saturating_add(LEEWAY)),
        })
    }
}

impl Signed for LinkClaims {
    const AUDIENCE: &'static str = LINK_AUDIENCE;
    const PREFIX: &'static str = LINK_PREFIX;
    const MOST_LIFE: Duration = MAX_LINK_LIFE;

    fn life(&self) -> u64 {
        self.exp.saturating_sub(self.iat)
    }

    fn audience(&self) -> &str {
        &self.aud
    }

    fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
        wrong_link().caused_by(cause)
    }
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
    use wolfpack_types::ExecutionId;

    use super::super::SandboxClaims;
    use super::signed::tests::{key, only_good_ones_pass};

    fn claims() -> LinkClaims {
        let (sandbox, project, user) = (SandboxId::new(), ProjectId::new(), UserId::new());
        let hour = Duration::from_secs(3600);
        LinkClaims::new(&sandbox, 8080, &project, &user, SystemTime::now(), hour)
    }

    #[test]
    fn a_signed_link_names_its_port_and_everything_else_is_refused() {
        let claims = claims();
        only_good_ones_pass(&claims, |claims, audience, seconds| LinkClaims {
            aud: audience.to_owned(),
            exp: claims.exp.saturating_add_signed(seconds),
            ..claims.clone()
        });
        let (private, public) = key();
        let link = claims.sign("k1", &private).unwrap();
        let bare = &link[LINK_PREFIX.len()..];
        assert_eq!(LinkClaims::verify(bare, &public).unwrap_err().reason, Reason::LinkInvalid);
        let Principal::Link { sandbox, port, .. } = claims.principal().unwrap() else {
            panic!("another principal")
        };
        assert_eq!((sandbox.name(), port), (claims.sub.clone(), 8080));
        assert!(LinkClaims { prt: 0, ..claims }.principal().is_err());
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

//! The form of a join token: `wpj_<id>_<secret>_<hash>`. The hash is the
//! SHA-256 of the CA certificate (DER) that the wolf must meet, so a wolf that
//! knows nothing else cannot be made to join someone else's control plane.

use wolfpack_types::JoinTokenId;
use zeroize::Zeroizing;

use super::pepper::Pepper;

const PURPOSE: &str = "join token";
const PREFIX: &str = "wpj";

/// The string is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token; check that it was copied whole")]
pub struct MalformedToken;

/// A join token, with its secret.
pub struct JoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// SHA-256 of the CA certificate to meet.
    pub ca_sha256: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
}

impl JoinToken {
    /// Makes a fresh token for a CA.
    #[must_use]
    pub fn generate(ca_sha256: [u8; 32]) -> Self {
        Self { id: JoinTokenId::new(), ca_sha256, secret: Zeroizing::new(rand::random()) }
    }

    /// The token as it is handed out, this once.
    #[must_use]
    pub fn reveal(&self) -> String {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        format!("{PREFIX}_{}_{}_{}", self.id, hex(self.secret.as_slice()), hex(&self.ca_sha256))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(token: &str) -> Result<Self, MalformedToken> {
        let bytes = |hex: &str| -> Result<[u8; 32], MalformedToken> {
            let decoded = Zeroizing::new(
                data_encoding::HEXLOWER.decode(hex.as_bytes()).map_err(|_| MalformedToken)?,
            );
            decoded.as_slice().try_into().map_err(|_| MalformedToken)
        };
        let parts: Vec<&str> = token.split('_').collect();
        let [PREFIX, id, secret, hash] = parts[..] else { return Err(MalformedToken) };
        Ok(Self {
            id: JoinTokenId::parse(id).map_err(|_| MalformedToken)?,
            ca_sha256: bytes(hash)?,
            secret: Zeroizing::new(bytes(secret)?),
        })
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self, pepper: &Pepper) -> [u8; 32] {
        pepper.hash(PURPOSE, self.id.as_str(), self.secret.as_slice())
    }

    /// Whether this is the token whose hash was stored; in constant time.
    #[must_use]
    pub fn matches(&self, pepper: &Pepper, stored: &[u8]) -> bool {
        pepper.verify(PURPOSE, self.id.as_str(), self.secret.as_slice(), stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_round_trip() {
        let pepper = Pepper::new([1; 32]);
        let token = JoinToken::generate([9; 32]);
        let again = JoinToken::parse(&token.reveal()).unwrap();
        assert_eq!((again.id.clone(), again.ca_sha256), (token.id.clone(), [9; 32]));
        assert!(again.matches(&pepper, &token.hash(&pepper)));
        assert!(!JoinToken::generate([9; 32]).matches(&pepper, &token.hash(&pepper)));
    }

    proptest! {
        #[test]
        fn garbage_is_refused(text in "(wpj_)?.{0,200}", cut in 1usize..150) {
            prop_assert!(JoinToken::parse(&text).is_err());
            let token = JoinToken::generate([9; 32]).reveal();
            prop_assert!(JoinToken::parse(&token[..token.len() - cut.min(token.len())]).is_err());
        }
    }
}

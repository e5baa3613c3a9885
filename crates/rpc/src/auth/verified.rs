//! Tokens whose signature was verified a moment ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moka::sync::Cache;
use wolfpack_types::{Fault, Principal};

use super::SandboxClaims;

/// How long a verdict is used again: no longer than a withdrawn key is.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Tokens remembered at once.
const CAPACITY: u64 = 100_000;

/// Verifies sandbox tokens, and the same one again without its signature: an
/// agent shows its token with each of its streams, thousands in a second, and an
/// Ed25519 signature takes longer than all else a stream costs. Knows of no
/// revocations.
#[derive(Debug)]
pub struct TokenVerifier {
    // By BLAKE3 of the token, keyed by the key it is verified with, so that no
    // token lies in memory longer than its request.
    verified: Cache<[u8; 32], (Principal, u64)>,
}

impl Default for TokenVerifier {
    fn default() -> Self {
        let verified = Cache::builder().max_capacity(CAPACITY).time_to_live(REMEMBERED).build();
        Self { verified }
    }
}

impl TokenVerifier {
    /// Whom a token names that was signed under this public key.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_INVALID`.
    pub fn verify(&self, token: &str, public_key: &[u8; 32]) -> Result<Principal, Fault> {
        let hash = *blake3::keyed_hash(public_key, token.as_bytes()).as_bytes();
        if let Some((principal, expires)) = self.verified.get(&hash)
            && now() < expires
        {
            return Ok(principal);
        }
        let claims = SandboxClaims::verify(token, public_key)?;
        let principal = claims.principal()?;
        self.verified.insert(hash, (principal.clone(), claims.exp));
        Ok(principal)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::claims::tests::signed;

    #[test]
    fn a_token_counts_under_its_own_key_only_and_until_its_end() {
        let verifier = TokenVerifier::default();
        let (token, key) = signed(Duration::from_secs(3600));
        let first = verifier.verify(&token, &key).unwrap();
        assert_eq!(verifier.verify(&token, &key).unwrap(), first, "from memory");
        assert!(verifier.verify(&token, &[7; 32]).is_err(), "under another key");
        let altered = format!("{token}A");
        assert!(verifier.verify(&altered, &key).is_err(), "another token");
        // Good within the leeway of clocks, and yet not from memory.
        let (ended, key) = signed(Duration::ZERO);
        assert!(verifier.verify(&ended, &key).is_ok());
        let memory = verifier.verified.iter().filter(|(_, (_, expires))| now() >= *expires);
        assert_eq!(memory.count(), 1, "an ended one is verified each time");
    }
}

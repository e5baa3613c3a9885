//! The server's pepper: a secret outside the database without which the hashes
//! in it are of no use.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// 256 secret bits that key every hash of a credential.
#[derive(Clone)]
pub struct Pepper(Zeroizing<[u8; 32]>);

impl Pepper {
    /// A pepper of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The keyed BLAKE3 of an id and a secret, for one purpose. The parts are
    /// length-prefixed, so no two inputs collide by concatenation.
    #[must_use]
    pub fn hash(&self, purpose: &str, id: &str, secret: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [purpose.as_bytes(), id.as_bytes(), secret] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether a secret is the one that was hashed; takes the same time
    /// whatever the answer.
    #[must_use]
    pub fn verify(&self, purpose: &str, id: &str, secret: &[u8], stored: &[u8]) -> bool {
        self.hash(purpose, id, secret).ct_eq(stored).into()
    }

    /// A key derived from the pepper for one purpose, to seal what is stored.
    #[must_use]
    pub fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, self.0.as_slice()))
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_fits_its_pepper_purpose_id_and_secret_only() {
        let pepper = Pepper::new([7; 32]);
        let stored = pepper.hash("key", "id", b"secret");
        assert!(pepper.verify("key", "id", b"secret", &stored));
        assert!(!Pepper::new([8; 32]).verify("key", "id", b"secret", &stored));
        assert!(!pepper.verify("token", "id", b"secret", &stored));
        assert!(!pepper.verify("key", "i", b"dsecret", &stored));
        assert!(!pepper.verify("key", "id", b"secret", &stored[..31]));
        assert!(!pepper.verify("key", "id", b"secret", &[]));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Pepper::new([65; 32])), "Pepper(secret)");
    }
}

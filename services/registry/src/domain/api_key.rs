//! The form of an API key: `wp_<env>_<id>_<secret>_<crc>`. The id finds the
//! row, the secret (256 bits) is only ever stored as a keyed hash, and the
//! checksum tells a mistyped or cut key from a wrong one without a look-up and
//! lets scanners recognise leaked keys.

use wolfpack_types::ApiKeyId;
use zeroize::Zeroizing;

use super::pepper::Pepper;

const PURPOSE: &str = "api key";
const PREFIX: &str = "wp";

/// The string is not an API key: cut, mistyped or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an API key; check that it was copied whole")]
pub struct MalformedKey;

/// An API key, with its secret.
pub struct ApiKeySecret {
    /// Its id.
    pub id: ApiKeyId,
    environment: String,
    secret: Zeroizing<[u8; 32]>,
}

impl ApiKeySecret {
    /// Makes a fresh key. The environment is a word of 1 to 16 `a-z0-9`, for
    /// people: it tells keys of one installation from those of another.
    #[must_use]
    pub fn generate(environment: &str) -> Self {
        Self {
            id: ApiKeyId::new(),
            environment: environment.to_owned(),
            secret: Zeroizing::new(rand::random()),
        }
    }

    /// The key as its user gets it, this once.
    #[must_use]
    pub fn reveal(&self) -> String {
        let secret = Zeroizing::new(data_encoding::BASE32_NOPAD.encode(self.secret.as_slice()));
        let body = Zeroizing::new(format!(
            "{PREFIX}_{}_{}_{}",
            self.environment,
            self.id,
            secret.to_ascii_lowercase()
        ));
        let sum = crc32fast::hash(body.as_bytes());
        format!("{}_{sum:08x}", *body)
    }

    /// Reads a key.
    ///
    /// # Errors
    /// When the checksum or the form is wrong: a cut key, another case, a typo.
    pub fn parse(key: &str) -> Result<Self, MalformedKey> {
        if key.len() > 256 {
            return Err(MalformedKey);
        }
        let (body, sum) = key.rsplit_once('_').ok_or(MalformedKey)?;
        if sum != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
            return Err(MalformedKey);
        }
        let parts: Vec<&str> = body.split('_').collect();
        let [PREFIX, environment, id, secret] = parts[..] else { return Err(MalformedKey) };
        if !valid_environment(environment) || secret.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(MalformedKey);
        }
        let upper = Zeroizing::new(secret.to_ascii_uppercase());
        let bytes = Zeroizing::new(
            data_encoding::BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| MalformedKey)?,
        );
        Ok(Self {
            id: ApiKeyId::parse(id).map_err(|_| MalformedKey)?,
            environment: environment.to_owned(),
            secret: Zeroizing::new(bytes.as_slice().try_into().map_err(|_| MalformedKey)?),
        })
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self, pepper: &Pepper) -> [u8; 32] {
        pepper.hash(PURPOSE, self.id.as_str(), self.secret.as_slice())
    }

    /// Whether this is the key whose hash was stored; in constant time.
    #[must_use]
    pub fn matches(&self, pepper: &Pepper, stored: &[u8]) -> bool {
        pepper.verify(PURPOSE, self.id.as_str(), self.secret.as_slice(), stored)
    }
}

/// Whether a word can stand in a key as its environment.
#[must_use]
pub fn valid_environment(word: &str) -> bool {
    (1..=16).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_round_trip_and_match_only_their_own_hash() {
        let pepper = Pepper::new([1; 32]);
        let (one, two) = (ApiKeySecret::generate("dev"), ApiKeySecret::generate("dev"));
        let again = ApiKeySecret::parse(&one.reveal()).unwrap();
        assert_eq!(again.id, one.id);
        assert!(again.matches(&pepper, &one.hash(&pepper)));
        assert!(!again.matches(&pepper, &two.hash(&pepper)));
        assert!(one.reveal().starts_with("wp_dev_"));
        assert_eq!(again.secret.len() * 8, 256);
    }

    proptest! {
        #[test]
        fn a_damaged_key_is_not_a_key(cut in 1usize..40, at in 0usize..90, flip in 1u8..=255) {
            let key = ApiKeySecret::generate("live").reveal();
            prop_assert!(ApiKeySecret::parse(&key[..key.len() - cut]).is_err());
            prop_assert!(ApiKeySecret::parse(&key[cut..]).is_err());
            prop_assert!(ApiKeySecret::parse(&key.to_ascii_uppercase()).is_err());
            let mut bytes = key.clone().into_bytes();
            let position = at % bytes.len();
            bytes[position] ^= flip;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert!(ApiKeySecret::parse(&changed).is_err());
            }
            let mut cased = key.into_bytes();
            if cased[position].is_ascii_lowercase() {
                cased[position] = cased[position].to_ascii_uppercase();
                prop_assert!(ApiKeySecret::parse(&String::from_utf8(cased).unwrap()).is_err());
            }
        }

        #[test]
        fn garbage_never_panics(text in "(wp_)?.{0,300}") {
            prop_assert!(ApiKeySecret::parse(&text).is_err());
        }
    }
}

//! Page tokens: where the next page begins, bound to the query it belongs to.
//! Opaque to clients; not a secret, since every query is scoped to its caller.

use crate::fault::Fault;
use crate::reason::Reason;

/// Page sizes: what 0 means, and the most that is given.
pub const DEFAULT_PAGE_SIZE: u32 = 100;
/// The most rows a page holds.
pub const MAX_PAGE_SIZE: u32 = 1000;

/// The number of rows for a requested size: 0 is the default, more than the
/// most is the most; negative sizes are refused by the proto rules before.
#[must_use]
pub fn page_size(requested: i32) -> u32 {
    match u32::try_from(requested) {
        Ok(0) | Err(_) => DEFAULT_PAGE_SIZE,
        Ok(size) => size.min(MAX_PAGE_SIZE),
    }
}

/// Makes a token: the key of the last row sent, for the query that `scope`
/// describes (method, filters and caller).
#[must_use]
pub fn encode(last_key: &str, scope: &str) -> String {
    let mut bytes = mac(last_key, scope).to_vec();
    bytes.extend_from_slice(last_key.as_bytes());
    data_encoding::BASE64URL_NOPAD.encode(&bytes)
}

/// Reads a token: `None` for the empty one of the first page.
///
/// # Errors
/// `PAGE_TOKEN_INVALID` when it is damaged or was made for another scope.
pub fn decode(token: &str, scope: &str) -> Result<Option<String>, Fault> {
    if token.is_empty() {
        return Ok(None);
    }
    let invalid = || {
        Fault::new(
            Reason::PageTokenInvalid,
            "the page token is not valid for this query; begin again without one",
        )
    };
    let bytes = data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| invalid())?;
    let (sum, key) = bytes.split_at_checked(16).ok_or_else(invalid)?;
    let key = std::str::from_utf8(key).map_err(|_| invalid())?;
    if sum == mac(key, scope) { Ok(Some(key.to_owned())) } else { Err(invalid()) }
}

fn mac(last_key: &str, scope: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("wolfpack page token v1");
    hasher.update(&(scope.len() as u64).to_le_bytes());
    hasher.update(scope.as_bytes());
    hasher.update(last_key.as_bytes());
    let mut sum = [0; 16];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tokens_round_trip_and_refuse_other_scopes(key in ".{0,40}", scope in ".{0,40}", other in ".{0,40}") {
            let token = encode(&key, &scope);
            prop_assert_eq!(decode(&token, &scope).unwrap(), Some(key));
            if other != scope {
                prop_assert_eq!(decode(&token, &other).unwrap_err().reason, Reason::PageTokenInvalid);
            }
        }

        #[test]
        fn garbage_never_panics(token in ".{1,80}") {
            prop_assert!(decode(&token, "scope").is_err());
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!((page_size(0), page_size(7), page_size(5000)), (100, 7, 1000));
    }
}

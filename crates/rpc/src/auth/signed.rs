//! What the registry signs: JWTs, EdDSA, each kind for an audience of its own and
//! with a bounded life. Who a kind lets in is in its claims.

use std::error::Error;
use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wolfpack_types::Fault;

/// Clocks of a fleet differ by this much, in seconds.
pub(super) const LEEWAY: u64 = 30;

/// The claims of one kind of token; `exp`, `aud` and `sub` are among them.
pub(super) trait Signed: Serialize + DeserializeOwned {
    /// The audience of every one: a token for anything else is none.
    const AUDIENCE: &'static str;
    /// What every one begins with, before the JWT.
    const PREFIX: &'static str;
    /// None lives longer.
    const MOST_LIFE: Duration;

    /// How long it lives, in seconds from when it was issued.
    fn life(&self) -> u64;

    /// The audience it says.
    fn audience(&self) -> &str;

    /// One answer for all ways in which a token can be wrong.
    fn invalid(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Fault;
}

/// Signs claims under a key id.
///
/// # Errors
/// `INTERNAL` when the key is not an Ed25519 key.
pub(super) fn sign<C: Signed>(
    claims: &C,
    key_id: &str,
    key: &EncodingKey,
) -> Result<String, Fault> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(key_id.to_owned());
    let token = encode(&header, claims, key).map_err(Fault::internal)?;
    Ok(format!("{}{token}", C::PREFIX))
}

/// The key id that a token says it was signed under; not verified.
///
/// # Errors
/// That of the kind when it is no such token.
pub(super) fn key_id<C: Signed>(token: &str) -> Result<String, Fault> {
    let header = decode_header(jwt::<C>(token)?).map_err(C::invalid)?;
    if header.alg != Algorithm::EdDSA {
        return Err(C::invalid("not signed by EdDSA"));
    }
    header.kid.ok_or_else(|| C::invalid("no key id"))
}

/// Verifies a token with the 32 bytes of the Ed25519 public key it was signed
/// under. Does not know of revocations.
///
/// # Errors
/// That of the kind.
pub(super) fn verify<C: Signed>(token: &str, public_key: &[u8; 32]) -> Result<C, Fault> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[C::AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    validation.leeway = LEEWAY;
    let key = DecodingKey::from_ed_der(public_key);
    let claims = decode::<C>(jwt::<C>(token)?, &key, &validation).map_err(C::invalid)?.claims;
    if claims.life() > C::MOST_LIFE.as_secs() {
        return Err(C::invalid("it lives too long"));
    }
    Ok(claims)
}

/// What a token says of itself, nothing verified but that it is of this kind: to
/// tell early what cannot be good, never to let anyone in.
///
/// # Errors
/// That of the kind when it is no such token.
pub(super) fn unverified<C: Signed>(token: &str) -> Result<C, Fault> {
    let claims = insecure_decode::<C>(jwt::<C>(token)?).map_err(C::invalid)?.claims;
    if claims.audience() == C::AUDIENCE { Ok(claims) } else { Err(C::invalid("another audience")) }
}

fn jwt<C: Signed>(token: &str) -> Result<&str, Fault> {
    token.strip_prefix(C::PREFIX).ok_or_else(|| C::invalid("it does not begin as one"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ring::signature::KeyPair as _;

    /// A fresh key, and its public half.
    pub(in crate::auth) fn key() -> (EncodingKey, [u8; 32]) {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        (EncodingKey::from_ed_der(pkcs8.as_ref()), pair.public_key().as_ref().try_into().unwrap())
    }

    /// Claims that pass come back, and all that is wrong with them or their
    /// signature is refused; `change` makes others of them, by audience, and by
    /// seconds by which the end is moved.
    pub(in crate::auth) fn only_good_ones_pass<C>(good: &C, change: impl Fn(&C, &str, i64) -> C)
    where
        C: Signed + PartialEq + std::fmt::Debug,
    {
        let (private, public) = key();
        let signed = |claims: &C| sign(claims, "k1", &private).unwrap();
        let token = signed(good);
        assert_eq!(key_id::<C>(&token).unwrap(), "k1");
        assert_eq!(&verify::<C>(&token, &public).unwrap(), good);
        assert_eq!(&unverified::<C>(&token).unwrap(), good);

        let expected = C::invalid("expected").reason;
        let refused = |token: &str| {
            assert_eq!(verify::<C>(token, &public).unwrap_err().reason, expected, "{token}");
        };
        refused("");
        refused(C::PREFIX);
        refused(&format!("{}a.b.c", C::PREFIX));
        refused(&format!("x{token}"));
        refused(&sign(good, "k1", &key().0).unwrap());
        let elsewhere = signed(&change(good, "another", 0));
        refused(&elsewhere);
        assert!(unverified::<C>(&elsewhere).is_err());
        let life = i64::try_from(good.life()).unwrap();
        refused(&signed(&change(good, C::AUDIENCE, -life - 3600)));
        let most = i64::try_from(C::MOST_LIFE.as_secs()).unwrap();
        assert!(verify::<C>(&signed(&change(good, C::AUDIENCE, most - life)), &public).is_ok());
        refused(&signed(&change(good, C::AUDIENCE, most - life + 1)));
        // The classic: another algorithm, keyed with the public key.
        let hmac = EncodingKey::from_secret(&public);
        let hmac = encode(&Header::new(Algorithm::HS256), good, &hmac).unwrap();
        let hmac = format!("{}{hmac}", C::PREFIX);
        refused(&hmac);
        assert!(key_id::<C>(&hmac).is_err());
    }
}

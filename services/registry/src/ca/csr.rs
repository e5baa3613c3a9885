//! A certificate request: its signature is checked, its public key is taken,
//! and everything else in it (subject, names, usages, extensions) is ignored.

use rcgen::{PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The certificate request was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsrError {
    /// Not DER of a PKCS#10 request, or followed by other bytes.
    #[error("the certificate request is not a PKCS#10 request in DER")]
    Malformed,
    /// The request is not signed by the key it carries.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// A key that is not accepted.
    #[error("the key must be ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits")]
    Key,
}

/// A public key that its owner has proven to hold.
#[derive(Debug)]
pub(super) struct ProvenKey {
    algorithm: &'static SignatureAlgorithm,
    bytes: Vec<u8>,
}

impl PublicKeyData for ProvenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// Checks a request and takes its key.
pub(super) fn proven_key(der: &[u8]) -> Result<ProvenKey, CsrError> {
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let key = &request.certification_request_info.subject_pki;
    let algorithm = accepted(key)?;
    let signed_by = &request.signature_algorithm.algorithm;
    if *signed_by == OID_PKCS1_SHA1WITHRSA || *signed_by == OID_SHA1_WITH_RSA {
        return Err(CsrError::Signature);
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    Ok(ProvenKey { algorithm, bytes: key.subject_public_key.data.to_vec() })
}

fn accepted(key: &SubjectPublicKeyInfo<'_>) -> Result<&'static SignatureAlgorithm, CsrError> {
    let kind = &key.algorithm.algorithm;
    if *kind == OID_SIG_ED25519 {
        return Ok(&rcgen::PKCS_ED25519);
    }
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 => Ok(&rcgen::PKCS_ECDSA_P256_SHA256),
            Some(curve) if curve == OID_NIST_EC_P384 => Ok(&rcgen::PKCS_ECDSA_P384_SHA384),
            Some(_) | None => Err(CsrError::Key),
        };
    }
    if *kind == OID_PKCS1_RSAENCRYPTION
        && let Ok(PublicKey::RSA(rsa)) = key.parsed()
        && (2048..=4096).contains(&rsa.key_size())
    {
        return Ok(&rcgen::PKCS_RSA_SHA256);
    }
    Err(CsrError::Key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::new(vec!["forged.example".to_owned()])
            .unwrap()
            .serialize_request(key)
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn accepted_keys_are_taken_as_they_are() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(proven_key(&request(&key)).unwrap().der_bytes(), key.public_key_raw());
        }
    }

    #[test]
    fn keys_of_other_tools_are_taken_unless_they_are_weak() {
        // Made by openssl req -new -newkey ... -outform DER; their keys are gone.
        let good = include_bytes!("testdata/rsa-2048.csr.der");
        assert_eq!(proven_key(good).unwrap().algorithm(), &rcgen::PKCS_RSA_SHA256);
        let short = include_bytes!("testdata/rsa-1024.csr.der");
        assert_eq!(proven_key(short).unwrap_err(), CsrError::Key);
        let sha1 = include_bytes!("testdata/rsa-2048-sha1.csr.der");
        assert_eq!(proven_key(sha1).unwrap_err(), CsrError::Signature);
        let odd = include_bytes!("testdata/p521.csr.der");
        assert_eq!(proven_key(odd).unwrap_err(), CsrError::Key);
    }

    #[test]
    fn a_request_with_anothers_key_is_refused() {
        let (mine, victim) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let der = request(&mine);
        let at = der.windows(65).position(|part| part == mine.public_key_raw()).unwrap();
        let mut forged = der;
        forged[at..at + 65].copy_from_slice(victim.public_key_raw());
        assert_eq!(proven_key(&forged).unwrap_err(), CsrError::Signature);
    }

    #[test]
    fn bytes_after_the_request_are_refused() {
        let mut der = request(&KeyPair::generate().unwrap());
        der.push(0);
        assert_eq!(proven_key(&der).unwrap_err(), CsrError::Malformed);
    }

    proptest! {
        #[test]
        fn a_damaged_request_never_yields_another_key(at in 0usize..1000, flip in 1u8..=255) {
            let key = KeyPair::generate().unwrap();
            let mut der = request(&key);
            let at = at % der.len();
            der[at] ^= flip;
            // Some bytes around the signature mean nothing; all others count.
            if let Ok(proven) = proven_key(&der) {
                prop_assert_eq!(proven.der_bytes(), key.public_key_raw());
            }
        }

        #[test]
        fn garbage_never_panics(der in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(proven_key(&der).is_err());
        }
    }
}

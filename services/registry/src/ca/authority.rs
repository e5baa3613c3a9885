//! The authority itself.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use wolfpack_types::{Principal, WolfId, spiffe};
use x509_parser::prelude::FromDer as _;

use super::csr::{CsrError, proven_key};
use super::{CaError, write_private, write_public};

/// Certificates begin this much before they are made, for clocks that are late.
const BACK_DATE: Duration = Duration::from_secs(5 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROOT_VALIDITY: Duration = DAY.saturating_mul(3650);
const SERVICE_VALIDITY: Duration = DAY.saturating_mul(365);
const WOLF_VALIDITY: Duration = DAY.saturating_mul(7);

/// A certificate with the key that was made for it.
pub struct IssuedCertificate {
    /// The chain, leaf first, root last, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8, PEM.
    pub key_pem: String,
}

/// A certificate for a key that its owner keeps.
pub struct SignedCertificate {
    /// The chain, leaf first, root last, PEM.
    pub certificate_pem: String,
    /// When it ends.
    pub not_after: SystemTime,
}

/// A root that signs for services and wolves.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    root_der: CertificateDer<'static>,
    wolf_validity: Duration,
}

impl CertificateAuthority {
    /// Reads the CA of a folder (`ca.crt`, `ca.key`), or makes one there. The
    /// certificate is written last: a folder with a key alone is one where
    /// nobody has trusted the CA yet, and gets a new one.
    ///
    /// # Errors
    /// When the folder cannot be used, or what is in it is not a valid CA.
    pub fn create_or_load(dir: &Path) -> Result<Self, CaError> {
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !certificate.exists() {
            fs::create_dir_all(dir)
                .map_err(|source| CaError::File { path: dir.to_owned(), source })?;
            let made = root()?;
            write_private(&key, made.key_pem.as_bytes())
                .map_err(|source| CaError::File { path: key.clone(), source })?;
            write_public(&certificate, made.certificate_pem.as_bytes())
                .map_err(|source| CaError::File { path: certificate.clone(), source })?;
        }
        Self::load(dir)
    }

    /// Reads the CA of a folder.
    ///
    /// # Errors
    /// When it is not there, not whole, or over.
    pub fn load(dir: &Path) -> Result<Self, CaError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| CaError::File { path, source })
        };
        let (root_pem, key_pem) = (read("ca.crt")?, read("ca.key")?);
        let unusable = |problem: String| CaError::Unusable { path: dir.to_owned(), problem };
        let root_der = CertificateDer::from_pem_slice(root_pem.as_bytes())
            .map_err(|error| unusable(error.to_string()))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|error| unusable(error.to_string()))?;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&root_der)
            .map_err(|error| unusable(error.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(unusable("the key is not that of the certificate".to_owned()));
        }
        if !parsed.is_ca() {
            return Err(unusable("the certificate may not sign others".to_owned()));
        }
        if !parsed.validity().is_valid() {
            return Err(unusable("the certificate is over or not yet valid".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&root_der, key)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { issuer, root_pem, root_der, wolf_validity: WOLF_VALIDITY })
    }

    /// Sets how long the certificates of wolves are valid (7 days by default).
    #[must_use]
    pub fn with_wolf_validity(mut self, validity: Duration) -> Self {
        self.wolf_validity = validity;
        self
    }

    /// The root certificate, PEM: what clients and servers trust.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// SHA-256 of the root certificate (DER): what a join token carries.
    #[must_use]
    pub fn root_sha256(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.root_der);
        let mut sum = [0; 32];
        sum.copy_from_slice(digest.as_ref());
        sum
    }

    /// Makes key and certificate of a service, valid for a year, as server and
    /// as client. Host names and addresses are only needed where clients know
    /// the service by them (the gateway, the broker's agent port).
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue_service(
        &self,
        name: &str,
        dns_names: &[String],
        ips: &[IpAddr],
    ) -> Result<IssuedCertificate, CaError> {
        let uri = spiffe::service(name);
        if !matches!(spiffe::parse(&uri), Some(Principal::Service(_))) {
            return Err(CaError::Name(name.to_owned()));
        }
        let mut names = vec![SanType::URI(uri.try_into()?)];
        for dns in dns_names {
            let name = dns.as_str().try_into().map_err(|_| CaError::Name(dns.clone()))?;
            names.push(SanType::DnsName(name));
        }
        names.extend(ips.iter().copied().map(SanType::IpAddress));
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let params = leaf(name, names, usages, SystemTime::now() + SERVICE_VALIDITY);
        Ok(IssuedCertificate {
            certificate_pem: self.chain(&params, &key)?,
            key_pem: key.serialize_pem(),
        })
    }

    /// Signs a wolf's key. The names in the request do not matter: the
    /// certificate names the given wolf and nothing else, and is good for a
    /// client only.
    ///
    /// # Errors
    /// See [`CsrError`]; [`CaError`] when signing fails.
    pub fn sign_wolf_csr(
        &self,
        der: &[u8],
        wolf: &WolfId,
    ) -> Result<Result<SignedCertificate, CsrError>, CaError> {
        let key = match proven_key(der) {
            Ok(key) => key,
            Err(refused) => return Ok(Err(refused)),
        };
        let names = vec![SanType::URI(spiffe::wolf(wolf).try_into()?)];
        let not_after = SystemTime::now() + self.wolf_validity;
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let params = leaf(wolf.as_str(), names, usages, not_after);
        Ok(Ok(SignedCertificate { certificate_pem: self.chain(&params, &key)?, not_after }))
    }

    fn chain(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<String, CaError> {
        let leaf = params.signed_by(key, &self.issuer)?.pem();
        Ok(format!("{}\n{}", leaf.trim_end(), self.root_pem))
    }
}

fn named(common_name: &str, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Wolfpack");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = (SystemTime::now() - BACK_DATE).into();
    params.not_after = not_after.into();
    // 127 random bits: unique without a counter, and positive as DER wants it.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn leaf(
    common_name: &str,
    names: Vec<SanType>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    not_after: SystemTime,
) -> CertificateParams {
    let mut params = named(common_name, not_after);
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    params
}

fn root() -> Result<IssuedCertificate, CaError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = named("Wolfpack CA", SystemTime::now() + ROOT_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(IssuedCertificate {
        certificate_pem: params.self_signed(&key)?.pem(),
        key_pem: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use x509_parser::certificate::X509Certificate;
    use x509_parser::extensions::GeneralName;

    fn first(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let general = names.value.general_names.iter();
        general
            .map(|name| match name {
                GeneralName::URI(uri) => (*uri).to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_folder_keeps_its_ca_and_the_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (
            CertificateAuthority::create_or_load(dir.path()).unwrap(),
            CertificateAuthority::create_or_load(dir.path()).unwrap(),
        );
        assert_eq!(one.root_sha256(), two.root_sha256());
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_file(dir.path().join("ca.crt")).unwrap();
        let fresh = CertificateAuthority::create_or_load(dir.path()).unwrap();
        assert_ne!(fresh.root_sha256(), one.root_sha256());
    }

    #[test]
    fn a_key_of_another_ca_is_told_at_start() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        CertificateAuthority::create_or_load(one.path()).unwrap();
        CertificateAuthority::create_or_load(two.path()).unwrap();
        fs::copy(one.path().join("ca.key"), two.path().join("ca.key")).unwrap();
        assert!(matches!(
            CertificateAuthority::create_or_load(two.path()),
            Err(CaError::Unusable { .. })
        ));
    }

    #[test]
    fn services_are_named_by_spiffe_and_signed_by_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create_or_load(dir.path()).unwrap();
        let issued = ca
            .issue_service(
                "gateway",
                &["wolfpack.internal".into()],
                &["127.0.0.1".parse().unwrap()],
            )
            .unwrap();
        assert_eq!(issued.certificate_pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(issued.certificate_pem.ends_with(ca.root_pem()));
        let (leaf, root) = (first(&issued.certificate_pem), first(ca.root_pem()));
        let leaf = X509Certificate::from_der(&leaf).unwrap().1;
        let root = X509Certificate::from_der(&root).unwrap().1;
        leaf.verify_signature(Some(root.public_key())).unwrap();
        assert_eq!(uris(&leaf)[0], "spiffe://wolfpack/svc/gateway");
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth);
        assert!(!leaf.is_ca());
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let begins = u64::try_from(leaf.validity().not_before.timestamp()).unwrap();
        assert!((290..=310).contains(&(age - begins)), "begins {} s ago", age - begins);
        for bad in ["", "a/b", "Gateway", "a b"] {
            assert!(matches!(ca.issue_service(bad, &[], &[]), Err(CaError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_wolf_gets_its_own_name_whatever_it_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create_or_load(dir.path())
            .unwrap()
            .with_wolf_validity(Duration::from_secs(3600));
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
        wanted
            .subject_alt_names
            .push(SanType::URI("spiffe://wolfpack/svc/sandbox-manager".try_into().unwrap()));
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let csr = wanted.serialize_request(&key).unwrap();
        let wolf = WolfId::new();
        let signed = ca.sign_wolf_csr(csr.der(), &wolf).unwrap().unwrap();
        let leaf = first(&signed.certificate_pem);
        let leaf = X509Certificate::from_der(&leaf).unwrap().1;
        assert_eq!(uris(&leaf), [spiffe::wolf(&wolf)]);
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        let left = signed.not_after.duration_since(SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3500));
        assert!(ca.sign_wolf_csr(b"no", &wolf).unwrap().is_err());
    }
}

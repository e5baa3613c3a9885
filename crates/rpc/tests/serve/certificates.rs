//! A certificate authority in a folder, whose files can be replaced.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use wolfpack_rpc::TlsConfig;

pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf to be; each test changes what it is about.
pub(crate) struct Leaf {
    pub(crate) uris: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) common_name: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Leaf {
    pub(crate) fn service(name: &str) -> Self {
        Self {
            uris: vec![wolfpack_types::spiffe::service(name)],
            names: vec!["localhost".into(), "127.0.0.1".into()],
            common_name: name.to_owned(),
            not_before: SystemTime::now() - Duration::from_secs(3600),
            not_after: SystemTime::now() + Duration::from_secs(3600),
        }
    }
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "test root");
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        let hash = ring::digest::digest(&ring::digest::SHA256, self.issuer.der());
        hash.as_ref().try_into().unwrap()
    }

    /// Writes leaf (with the root behind it), key and the given roots.
    pub(crate) fn write(&self, folder: &Path, leaf: &Leaf, roots: &[&Ca]) -> TlsConfig {
        let mut params = CertificateParams::new(leaf.names.clone()).unwrap();
        for uri in &leaf.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        }
        params.distinguished_name.push(rcgen::DnType::CommonName, leaf.common_name.as_str());
        params.not_before = leaf.not_before.into();
        params.not_after = leaf.not_after.into();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = paths(folder);
        replace(&files.certificate_file, &format!("{}{}", certificate.pem(), self.pem()));
        replace(&files.key_file, &key.serialize_pem());
        replace(&files.roots_file, &roots.iter().map(|ca| ca.pem()).collect::<String>());
        files
    }

    /// A service's files in a folder of their own.
    pub(crate) fn service(&self, folder: &Path, name: &str) -> TlsConfig {
        self.write(&folder.join(name), &Leaf::service(name), &[self])
    }
}

pub(crate) fn paths(folder: &Path) -> TlsConfig {
    std::fs::create_dir_all(folder).unwrap();
    let file = |name: &str| -> PathBuf { folder.join(name) };
    TlsConfig {
        certificate_file: file("tls.crt"),
        key_file: file("tls.key"),
        roots_file: file("roots.crt"),
    }
}

/// As operators do it: never half a file.
pub(crate) fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

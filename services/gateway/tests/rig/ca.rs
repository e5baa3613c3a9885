//! A certificate authority of a test's own.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use wolfpack_rpc::tls::TlsConfig;

/// Issues certificates of services into a folder.
pub struct TestCa {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    pub fn new() -> Self {
        wolfpack_runtime::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("root.pem"), root.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// The files of a service's identity.
    pub fn service(&self, name: &str) -> TlsConfig {
        let at = |kind: &str| self.folder.path().join(format!("{name}.{kind}.pem"));
        let files = TlsConfig {
            certificate_file: at("cert"),
            key_file: at("key"),
            roots_file: self.roots(),
        };
        if !Path::new(&files.key_file).exists() {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            let uri = wolfpack_types::spiffe::service(name);
            params.subject_alt_names = vec![
                SanType::URI(uri.try_into().unwrap()),
                SanType::DnsName("localhost".try_into().unwrap()),
                SanType::IpAddress([127, 0, 0, 1].into()),
            ];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            std::fs::write(&files.certificate_file, certificate.pem()).unwrap();
            std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        }
        files
    }
}

//! A certificate authority for one test.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use wolfpack_rpc::TlsConfig;
use wolfpack_types::{WolfId, spiffe};

pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "test root");
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn service(&self, folder: &Path, name: &str) -> TlsConfig {
        self.write(&folder.join(name), &spiffe::service(name))
    }

    pub(crate) fn wolf(&self, folder: &Path, wolf: &WolfId) -> TlsConfig {
        self.write(&folder.join(wolf.as_str()), &spiffe::wolf(wolf))
    }

    fn write(&self, folder: &Path, uri: &str) -> TlsConfig {
        let files = TlsConfig {
            certificate_file: folder.join("tls.crt"),
            key_file: folder.join("tls.key"),
            roots_file: folder.join("roots.crt"),
        };
        if files.roots_file.exists() {
            return files;
        }
        std::fs::create_dir_all(folder).unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&files.certificate_file, certificate.pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        std::fs::write(&files.roots_file, self.pem()).unwrap();
        files
    }
}

//! A certificate authority of one run.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use wolfpack_rpc::TlsConfig;
use wolfpack_types::spiffe;

/// Issues certificates of services at this machine's own address.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> anyhow::Result<Self> {
        wolfpack_runtime::install_crypto_provider();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "benchmark root");
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Writes certificate, key and root of a service into `folder`.
    pub(crate) fn service(&self, folder: &Path, name: &str) -> anyhow::Result<TlsConfig> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        let uri = spiffe::service(name);
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        let files = TlsConfig {
            certificate_file: folder.join(format!("{name}.crt")),
            key_file: folder.join(format!("{name}.key")),
            roots_file: folder.join("ca.crt"),
        };
        std::fs::write(&files.certificate_file, certificate.pem())?;
        std::fs::write(&files.key_file, key.serialize_pem())?;
        std::fs::write(&files.roots_file, self.0.pem())?;
        Ok(files)
    }
}

//! Reading TLS files, and knowing when they changed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsConfig, TlsError};

/// What the files hold. Compared as bytes, so that a replaced file is seen
/// whatever its times say.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    roots: Vec<u8>,
}

/// The parsed form.
pub(crate) struct Material {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: RootCertStore,
    pub(crate) expires: SystemTime,
}

impl Contents {
    /// Reads the three files; each is a few kilobytes.
    pub(crate) fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&config.certificate_file)?,
            key: read(&config.key_file)?,
            roots: read(&config.roots_file)?,
        })
    }

    pub(crate) fn parse(&self, config: &TlsConfig) -> Result<Material, TlsError> {
        let chain = certificates(&self.certificate, &config.certificate_file)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| content(&config.key_file, "a private key", &error))?;
        let roots = roots(&self.roots, &config.roots_file)?;
        let expires = chain.first().map_or(SystemTime::UNIX_EPOCH, not_after);
        Ok(Material { chain, key, roots, expires })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn content(path: &Path, expected: &'static str, detail: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.to_owned(), expected, detail: detail.to_string() }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, "a certificate chain", &error))?;
    if chain.is_empty() {
        return Err(content(path, "a certificate chain", &"there is no certificate in it"));
    }
    Ok(chain)
}

/// Reads roots; every certificate must be usable, and there must be one.
pub(crate) fn roots(pem: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        store.add(certificate).map_err(|error| content(path, "trust roots", &error))?;
    }
    Ok(store)
}

/// Where roots came from when they came by hand.
pub(crate) fn given() -> PathBuf {
    PathBuf::from("(given roots)")
}

/// When a certificate ends; the epoch for one that does not parse.
pub(crate) fn not_after(certificate: &CertificateDer<'_>) -> SystemTime {
    x509_parser::parse_x509_certificate(certificate)
        .ok()
        .and_then(|(_, parsed)| u64::try_from(parsed.validity().not_after.timestamp()).ok())
        .map_or(SystemTime::UNIX_EPOCH, |seconds| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        })
}

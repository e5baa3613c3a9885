//! A root known by its hash only: how a wolf that joins meets the right fleet.

use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::CertificateDer;
use subtle::ConstantTimeEq as _;

/// SHA-256 of the root's DER.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pin(pub(crate) [u8; 32]);

impl Pin {
    /// Finds the root among what the server sent.
    pub(crate) fn find(self, presented: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        let root = presented
            .iter()
            .find(|certificate| {
                let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
                bool::from(hash.as_ref().ct_eq(&self.0))
            })
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut store = RootCertStore::empty();
        store.add(root.clone().into_owned())?;
        Ok(store)
    }
}

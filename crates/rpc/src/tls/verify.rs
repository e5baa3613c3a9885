//! How a client checks a server: chain to our roots, and then either the
//! SPIFFE URI of a service or the host's name.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::client::Expect;
use super::identity;
use super::pinned::Pin;

/// Where trust begins.
#[derive(Debug, Clone)]
pub(crate) enum Anchor {
    /// These roots.
    Roots(Arc<RootCertStore>),
    /// The root of this hash, which the server must present itself.
    Pin(Pin),
}

/// One check for one peer.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) anchor: Anchor,
    pub(crate) expect: Expect,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let roots = match &self.anchor {
            Anchor::Roots(roots) => Arc::clone(roots),
            Anchor::Pin(pin) => Arc::new(pin.find(intermediates)?),
        };
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let uri = identity::uri(end_entity);
        let fits =
            |service: &str| uri.as_deref() == Some(&wolfpack_types::spiffe::service(service));
        match &self.expect {
            Expect::Service(name) if fits(name) => Ok(ServerCertVerified::assertion()),
            Expect::Service(_) => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
            Expect::Host { or_service: Some(name) } if fits(name) => {
                Ok(ServerCertVerified::assertion())
            }
            Expect::Host { .. } => {
                verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

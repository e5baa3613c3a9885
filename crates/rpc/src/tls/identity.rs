//! Who a certificate names: exactly one SPIFFE URI among its subject
//! alternative names. Names in the common name mean nothing.

use rustls_pki_types::CertificateDer;
use wolfpack_types::{Principal, spiffe};
use x509_parser::extensions::GeneralName;

/// The one URI among the alternative names; `None` when there is none, or more.
pub(crate) fn uri(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next()?;
    uris.next().is_none().then(|| uri.to_owned())
}

/// The service or wolf a certificate names.
pub(crate) fn principal(certificate: &CertificateDer<'_>) -> Option<Principal> {
    spiffe::parse(&uri(certificate)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(uris: &[&str], common_name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn only_one_spiffe_uri_is_an_identity() {
        let registry = "spiffe://wolfpack/svc/registry";
        assert_eq!(
            principal(&certificate(&[registry], "x")),
            Some(Principal::Service("registry".into()))
        );
        assert_eq!(principal(&certificate(&[], registry)), None, "the common name is no identity");
        assert_eq!(
            principal(&certificate(&[registry, "spiffe://wolfpack/svc/gateway"], "x")),
            None
        );
        assert_eq!(principal(&certificate(&["https://wolfpack/svc/registry"], "x")), None);
        assert_eq!(principal(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}

//! TCP and TLS of an outgoing connection, each within a deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::CertificateError;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wolfpack_runtime::BoxError;

use super::response::{CERTIFICATE_EXPIRED, NAME_DIFFERS, NOT_TLS, SELF_SIGNED, UNKNOWN_ISSUER};
use crate::coalesce::Coalesce;
use crate::server::socket;
use crate::tls::{ClientTls, Expect};

/// For one address; a name may have several.
const CONNECT: Duration = Duration::from_secs(3);
/// For names and all addresses together.
const CONNECT_ALL: Duration = Duration::from_secs(8);
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A byte stream of either kind.
pub(crate) type BoxIo = crate::server::BoxIo;

/// TLS was not agreed upon.
#[derive(Debug, thiserror::Error)]
#[error("the tls handshake with {peer} failed: {source}")]
pub(crate) struct HandshakeError {
    peer: String,
    source: io::Error,
}

impl HandshakeError {
    /// What a user can do something about, in one of the words of
    /// [`super::response::TLS`]; `None` for the rest.
    pub(crate) fn kind(&self) -> Option<&'static str> {
        if matches!(
            self.source.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        ) {
            return Some(NOT_TLS);
        }
        let cause = self.source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause? {
            rustls::Error::InvalidCertificate(fault) => match fault {
                // Another CA of the same name, such as that of another fleet,
                // signs what ours cannot have signed.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Some(UNKNOWN_ISSUER)
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Some(CERTIFICATE_EXPIRED)
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Some(NAME_DIFFERS),
                // The server shows a CA as its own certificate, as self-signed ones are.
                CertificateError::Other(other) if is_ca_as_leaf(other) => Some(SELF_SIGNED),
                _ => None,
            },
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
                Some(NOT_TLS)
            }
            _ => None,
        }
    }
}

/// webpki has no public error of its own for this in rustls: its words are all.
fn is_ca_as_leaf(error: &rustls::OtherError) -> bool {
    error.to_string().contains("CaUsedAsEndEntity")
}

/// Connects to the authority of a URI.
pub(crate) async fn connect(uri: Uri, tls: Option<(ClientTls, Expect)>) -> Result<BoxIo, BoxError> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or_else(|| if tls.is_some() { 443 } else { 80 });
    let stream = timeout(CONNECT_ALL, tcp(&host, port))
        .await
        .map_err(|_| format!("no connection to {host}:{port} in {} s", CONNECT_ALL.as_secs()))?
        .map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    socket::tune(&stream);
    let Some((tls, expect)) = tls else { return Ok(Box::new(Coalesce::new(stream))) };
    let config = tls.handshake(&expect)?;
    let name = ServerName::try_from(host.clone())?;
    let stream = timeout(HANDSHAKE, TlsConnector::from(Arc::clone(&config)).connect(name, stream))
        .await
        .map_err(|_| format!("no tls handshake with {host}:{port} in {} s", HANDSHAKE.as_secs()))?
        .map_err(|source| HandshakeError { peer: format!("{host}:{port}"), source })?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(format!("{host}:{port} does not speak h2").into());
    }
    Ok(Box::new(Coalesce::new(stream)))
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

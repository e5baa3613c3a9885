//! Where a server listens.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::{ClientAuth, ServerTls, TlsConfig, TlsError};

/// Connections that wait for their accept; the kernel has a bound of its own,
/// 4096 by default. When thousands of agents come back at once, those beyond it
/// wait a second for their next attempt.
const BACKLOG: i32 = 4096;

/// One listener of a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// Address and port; port 0 takes any free one.
    pub address: SocketAddr,
    /// TLS files; without them the listener speaks plain HTTP/2.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Whether clients are asked for a certificate.
    #[serde(default)]
    pub client_auth: ClientAuth,
}

/// A listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is not to be had.
    #[error(
        "cannot listen on {address}: {source}; choose another address or stop what listens there"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS files are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Certificates are asked for, but there is no TLS to carry them.
    #[error(
        "{0} asks clients for certificates but has no tls files; set tls or turn client_auth off"
    )]
    ClientAuthWithoutTls(SocketAddr),
}

impl ListenConfig {
    /// Plain HTTP/2 on an address.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, client_auth: ClientAuth::Off }
    }

    /// TLS with a certificate of both sides.
    #[must_use]
    pub fn mutual(address: SocketAddr, tls: TlsConfig) -> Self {
        Self { address, tls: Some(tls), client_auth: ClientAuth::Required }
    }

    /// Loads the TLS files and takes the address; connections wait in the
    /// kernel until a server accepts.
    ///
    /// # Errors
    /// When the files are not usable or the address is not to be had.
    #[allow(clippy::unused_async, reason = "looking at files or names may become asynchronous")]
    pub async fn bind(&self) -> Result<BoundListener, ListenError> {
        let tls = match (&self.tls, self.client_auth) {
            (Some(files), auth) => Some(ServerTls::load(files, auth)?),
            (None, ClientAuth::Off) => None,
            (None, _) => return Err(ListenError::ClientAuthWithoutTls(self.address)),
        };
        let bound = |source| ListenError::Bind { address: self.address, source };
        let socket = open(self.address).map_err(bound)?;
        let address = socket.local_addr().map_err(bound)?;
        Ok(BoundListener { socket, address, tls })
    }
}

fn open(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for the old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// An address that is ours already. It belongs to no runtime until a server
/// serves it.
pub struct BoundListener {
    pub(crate) socket: std::net::TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<ServerTls>,
}

impl BoundListener {
    /// The address, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A second handle of the same socket, so that servers on several runtimes
    /// share the accepts.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, address: self.address, tls: self.tls.clone() })
    }
}

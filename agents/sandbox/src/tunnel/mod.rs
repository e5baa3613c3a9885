//! The sandbox's own tunnel, by its own token, and the token's refresh.

mod attach;
mod refresh;

use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::watch;
use tonic::codegen::http::Uri;
use wolfpack_rpc::{ByteBudget, ChannelError, ClientTls, PeerConfig, RpcChannel};

use crate::boot::{BootDir, Token};
use crate::resolve::{ResolveError, Resolver};

pub use attach::{TARGET, keep_attached};
pub use refresh::{Issuer, Registry, keep_fresh};

/// What it takes to reach the control plane as this sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Uplink {
    resolver: Resolver,
    tls: ClientTls,
    dir: BootDir,
    token: Arc<watch::Sender<SecretString>>,
}

/// The control plane cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The URL of the boot is none.
    #[error("{0:?} is not a URL; it must be https://host:port")]
    Url(String),
    /// Its host has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No channel can be made to it.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl Uplink {
    /// An uplink that shows `token` until a fresher one is published.
    #[must_use]
    pub fn new(resolver: Resolver, tls: ClientTls, dir: BootDir, token: &Token) -> Self {
        let token = Arc::new(watch::Sender::new(token.secret().clone()));
        Self { resolver, tls, dir, token }
    }

    /// The addresses of `url` as URLs, for channels: the C library's resolver,
    /// which a channel would use for a name, is not to be had here. Who is met
    /// there is known by its certificate's SPIFFE id, not by the name.
    async fn locate(&self, url: &str) -> Result<Vec<String>, UplinkError> {
        let wrong = || UplinkError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let scheme = uri.scheme_str().ok_or_else(wrong)?;
        let host = uri.host().ok_or_else(wrong)?;
        let port = uri.port_u16().ok_or_else(wrong)?;
        let addresses = self.resolver.resolve(host, port).await?;
        Ok(addresses.into_iter().map(|address| format!("{scheme}://{address}")).collect())
    }

    fn broker(&self, address: &str, budget: &ByteBudget) -> Result<RpcChannel, ChannelError> {
        let peer = PeerConfig::at(address);
        let channel = RpcChannel::for_tunnel(&peer, "tunnel-broker", Some(&self.tls), budget)?;
        Ok(channel.with_bearer(self.token.subscribe()))
    }

    fn gateway(&self, address: &str) -> Result<RpcChannel, ChannelError> {
        let channel = RpcChannel::to_gateway(address, Some(&self.tls), None)?;
        Ok(channel.with_bearer(self.token.subscribe()))
    }
}

//! From a name to addresses, once for each dial.

use std::io;
use std::net::IpAddr;

use async_trait::async_trait;

/// Who is asked for the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of `host`, which may be one itself. The caller bounds the
    /// time.
    ///
    /// # Errors
    /// When there is none.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of this host, as all programs use it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        // It looks up addresses of services; a name is all we have.
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

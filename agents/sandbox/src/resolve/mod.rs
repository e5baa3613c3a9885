//! From a host name to addresses, without the C library: `/etc/hosts` first,
//! where the wolf's agent puts `wolfpack.internal`, then the name servers of
//! `/etc/resolv.conf`.

mod dns;
mod hosts;
mod message;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Resolves by the files under one root.
#[derive(Debug, Clone)]
pub struct Resolver {
    root: PathBuf,
}

/// A name without an address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nobody knows it.
    #[error("no address is known for {0:?}, neither in /etc/hosts nor to the name servers")]
    Unknown(String),
    /// It is no host name.
    #[error("{0:?} is not a host name")]
    Name(String),
    /// The name servers did not answer.
    #[error("the name servers did not answer for {name:?}")]
    Servers {
        /// Which name.
        name: String,
        /// The last failure.
        #[source]
        source: io::Error,
    },
}

impl Default for Resolver {
    fn default() -> Self {
        Self::under(Path::new("/"))
    }
}

impl Resolver {
    /// A resolver that reads `etc/hosts` and `etc/resolv.conf` under `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Addresses of `host`, which may be an address itself, also in brackets.
    /// Both files are read anew each time. At most about 10 s.
    ///
    /// # Errors
    /// When there is none.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let text = |name: &str| {
            let bytes = std::fs::read(self.root.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let mut addresses = hosts::lookup(&text("etc/hosts"), host);
        if addresses.is_empty() {
            addresses = dns::lookup(&dns::servers(&text("etc/resolv.conf")), host).await?;
        }
        if addresses.is_empty() {
            return Err(ResolveError::Unknown(host.to_owned()));
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_come_first_and_addresses_are_themselves() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/hosts"), "172.20.0.1 wolfpack.internal\n").unwrap();
        let resolver = Resolver::under(root.path());
        let expect = |text: &str| vec![text.parse::<SocketAddr>().unwrap()];
        assert_eq!(
            resolver.resolve("wolfpack.internal", 8444).await.unwrap(),
            expect("172.20.0.1:8444")
        );
        assert_eq!(resolver.resolve("127.0.0.1", 1).await.unwrap(), expect("127.0.0.1:1"));
        assert_eq!(resolver.resolve("[::1]", 1).await.unwrap(), expect("[::1]:1"));
        assert!(matches!(resolver.resolve("elsewhere", 1).await, Err(ResolveError::Unknown(_))));
        assert!(matches!(
            resolver.resolve("a b", 1).await,
            Err(ResolveError::Name(_) | ResolveError::Unknown(_))
        ));
    }
}

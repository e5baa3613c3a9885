//! The upstreams as they are now.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Upstreams;
use crate::outer::ResolvConf;

/// Where resolvers listen.
const PORT: u16 = 53;
/// How often the file is looked at, at most.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long an upstream that did not answer is asked last.
const PENALTY: Duration = Duration::from_secs(5);

/// The upstreams as they are now, those first that answered.
#[derive(Debug)]
pub(super) struct Servers {
    source: Source,
    /// Our own addresses, never asked.
    own: Vec<SocketAddr>,
    silent: Mutex<HashMap<SocketAddr, Instant>>,
}

#[derive(Debug)]
enum Source {
    Fixed(Vec<SocketAddr>),
    File { path: PathBuf, port: u16, seen: Mutex<Seen> },
}

#[derive(Debug, Default)]
struct Seen {
    servers: Vec<SocketAddr>,
    stamp: Option<Stamp>,
    looked: Option<Instant>,
}

/// Changes when the file does.
type Stamp = (SystemTime, u64, u64);

impl Servers {
    pub(super) fn new(upstreams: Upstreams, own: Vec<SocketAddr>) -> Self {
        let source = match upstreams {
            Upstreams::Fixed(servers) => Source::Fixed(servers),
            Upstreams::ResolvConf(path) => Source::file(path, PORT),
        };
        Self { source, own, silent: Mutex::default() }
    }

    /// As a resolv.conf, with another port: tests have no use for 53.
    #[cfg(test)]
    pub(super) fn of_file(path: PathBuf, port: u16) -> Self {
        Self { source: Source::file(path, port), own: Vec::new(), silent: Mutex::default() }
    }

    /// Whom to ask, in order.
    pub(super) async fn now(&self) -> Vec<SocketAddr> {
        let mut servers = match &self.source {
            Source::Fixed(servers) => servers.clone(),
            Source::File { path, port, seen } => {
                let due = {
                    let mut seen = locked(seen);
                    let due = seen.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
                    if due {
                        seen.looked = Some(Instant::now());
                    }
                    due
                };
                if due {
                    look(path, *port, seen).await;
                }
                locked(seen).servers.clone()
            }
        };
        servers.retain(|server| !self.own.contains(server));
        let mut silent = locked(&self.silent);
        silent.retain(|_, since| since.elapsed() < PENALTY);
        // Stable: the order of the file stays otherwise.
        servers.sort_by_key(|server| silent.contains_key(server));
        servers
    }

    /// It did not answer.
    pub(super) fn was_silent(&self, server: SocketAddr) {
        locked(&self.silent).insert(server, Instant::now());
    }

    /// It answered.
    pub(super) fn answered(&self, server: SocketAddr) {
        locked(&self.silent).remove(&server);
    }
}

impl Source {
    fn file(path: PathBuf, port: u16) -> Self {
        Self::File { path, port, seen: Mutex::default() }
    }
}

/// Reads the file if it is not as it was. One that cannot be read leaves what
/// was known: it is being written.
async fn look(path: &std::path::Path, port: u16, seen: &Mutex<Seen>) {
    let Some(stamp) = stamp(path).await else { return };
    if locked(seen).stamp == Some(stamp) {
        return;
    }
    let Ok(text) = tokio::fs::read_to_string(path).await else { return };
    let read = ResolvConf::parse(&text);
    let servers: Vec<SocketAddr> =
        read.nameservers.into_iter().map(|address| SocketAddr::new(address, port)).collect();
    tracing::info!(?servers, file = %path.display(), "resolvers");
    let mut seen = locked(seen);
    seen.servers = servers;
    seen.stamp = Some(stamp);
}

async fn stamp(path: &std::path::Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A TCP relay between two parts of a system that can go bad on demand, from
//! one connection's point of view as the network would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How the relay treats bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Accepts and reads nothing more, sends nothing more, closes nothing: a
    /// network that drops every packet.
    Blackhole,
    /// Closes what is open with a reset and refuses what comes.
    Reset,
}

/// A relay on a loopback port; dropping it closes all.
#[derive(Debug)]
pub struct FaultRelay {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
    task: AbortHandle,
}

impl FaultRelay {
    /// Starts a relay to `upstream`, passing.
    ///
    /// # Panics
    /// When no loopback port can be bound.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, watch) = watch::channel(Mode::Pass);
        let accepted = Arc::new(AtomicUsize::new(0));
        let bytes = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, upstream, watch, accepted.clone(), bytes.clone()));
        Self { address, mode, accepted, bytes, task: task.abort_handle() }
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how bytes are treated, for open connections too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Bytes passed on so far, both ways.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for FaultRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    mode: watch::Receiver<Mode>,
    accepted: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        accepted.fetch_add(1, Ordering::Relaxed);
        connections.spawn(carry(client, upstream, mode.clone(), bytes.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(
    client: TcpStream,
    upstream: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    bytes: Arc<AtomicU64>,
) {
    if *mode.borrow() == Mode::Reset {
        let _ = client.set_zero_linger();
        return;
    }
    // A network that drops packets lets nobody connect; the accepted socket is
    // held so that the client sees silence rather than a close.
    if mode.wait_for(|mode| *mode != Mode::Blackhole).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = pump(client_read, server_write, mode.clone(), bytes.clone());
    let down = pump(server_read, client_write, mode.clone(), bytes);
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = mode.wait_for(|mode| *mode == Mode::Reset) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    bytes: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        if mode.wait_for(|mode| *mode != Mode::Blackhole).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            // What was read before the network went bad is not passed on.
            _ = mode.wait_for(|mode| *mode == Mode::Blackhole) => continue,
        };
        match read {
            Ok(0) => {
                let _ = to.shutdown().await;
                return;
            }
            Ok(count) => {
                bytes.fetch_add(count as u64, Ordering::Relaxed);
                if to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn passes_swallows_and_resets() {
        let relay = FaultRelay::start(echo().await).await;
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        let mut answer = [0; 4];
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");

        relay.set(Mode::Blackhole);
        stream.write_all(b"gone").await.unwrap();
        let silent = timeout(Duration::from_millis(200), stream.read_exact(&mut answer)).await;
        assert!(silent.is_err(), "a black hole answered");

        relay.set(Mode::Reset);
        let end = timeout(Duration::from_secs(5), stream.read(&mut answer)).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

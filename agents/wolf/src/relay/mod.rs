//! What sandboxes reach as `wolfpack.internal`: two ports on the bridge's
//! address, and only there, whose bytes go to the gateway and the broker. TLS
//! stays end to end; the targets are resolved anew for each connection, so a
//! control plane that moved is found again.

mod ports_file;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::Supervisor;

use crate::config::HostPort;
use crate::lifecycle::RelayPorts;
use crate::metrics::Metrics;

pub use ports_file::PortsFile;

/// Connections at a time, over all sandboxes and for one of them: a sandbox
/// that opens all it can leaves room for the others.
const CONNECTIONS: usize = 4_096;
const CONNECTIONS_EACH: usize = 128;
/// How long finding and reaching the target may take.
const CONNECT: Duration = Duration::from_secs(10);
/// After an accept that failed (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const COPY_BUFFER: usize = 32 * 1024;

/// Where a port leads.
#[derive(Debug, Clone)]
pub struct Target {
    /// One word for metrics.
    pub name: &'static str,
    /// The address as this host reaches it; may change.
    pub address: Arc<ArcSwap<HostPort>>,
}

/// A relay that listens; dropping it ends listening and all it carries.
#[derive(Debug)]
pub struct Relay {
    ports: RelayPorts,
    stop: CancellationToken,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Relay {
    /// Listens on the bridge's address: on the wanted ports, else on free ones.
    ///
    /// # Errors
    /// When neither can be bound; the address may not be there yet.
    pub async fn listen(
        bridge: Ipv4Addr,
        wanted: RelayPorts,
        (gateway, broker): (Target, Target),
        bounds: Arc<Bounds>,
        supervisor: &Supervisor,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let gateway_listener = bind(bridge, wanted.gateway).await?;
        let broker_listener = bind(bridge, wanted.broker).await?;
        let ports = RelayPorts {
            gateway: gateway_listener.local_addr()?.port(),
            broker: broker_listener.local_addr()?.port(),
        };
        let stop = supervisor.token().child_token();
        for (listener, target) in [(gateway_listener, gateway), (broker_listener, broker)] {
            let port = Port {
                target,
                bounds: bounds.clone(),
                stop: stop.clone(),
                metrics: metrics.clone(),
                supervisor: supervisor.clone(),
            };
            supervisor.spawn("relay", async move { port.accept(listener).await });
        }
        Ok(Self { ports, stop })
    }

    /// The ports it listens on.
    #[must_use]
    pub fn ports(&self) -> RelayPorts {
        self.ports
    }
}

async fn bind(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let at = |port: u16| SocketAddr::new(IpAddr::V4(address), port);
    match TcpListener::bind(at(port)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && port != 0 => {
            let listener = TcpListener::bind(at(0)).await?;
            let instead = listener.local_addr()?.port();
            tracing::info!(port, instead, "the relay's port is taken; it listens on a free one");
            Ok(listener)
        }
        other => other,
    }
}

/// How many connections there may be: over all bridges, and for each sandbox.
#[derive(Debug)]
pub struct Bounds {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<IpAddr, usize>>,
    /// Whether all addresses of the bridge are one sandbox's.
    one: bool,
}

/// One connection's share of the bounds.
struct Share {
    bounds: Arc<Bounds>,
    source: IpAddr,
    _all: tokio::sync::OwnedSemaphorePermit,
}

impl Default for Bounds {
    /// Those of a bridge whose addresses are a sandbox each.
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(CONNECTIONS)), each: Mutex::default(), one: false }
    }
}

impl Bounds {
    /// Those of a bridge that one sandbox has for itself, where it may take any
    /// address; within the same whole.
    #[must_use]
    pub fn of_one(&self) -> Self {
        Self { all: self.all.clone(), each: Mutex::default(), one: true }
    }

    fn take(self: &Arc<Self>, source: IpAddr) -> Result<Share, &'static str> {
        let source = if self.one { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { source };
        let all = self.all.clone().try_acquire_owned().map_err(|_| "full")?;
        let mut each = self.each.lock();
        let open = each.entry(source).or_default();
        if *open >= CONNECTIONS_EACH {
            return Err("sandbox_full");
        }
        *open += 1;
        Ok(Share { bounds: self.clone(), source, _all: all })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut each = self.bounds.each.lock();
        if let Some(open) = each.get_mut(&self.source) {
            *open -= 1;
            if *open == 0 {
                each.remove(&self.source);
            }
        }
    }
}

#[derive(Clone)]
struct Port {
    target: Target,
    bounds: Arc<Bounds>,
    stop: CancellationToken,
    metrics: Metrics,
    supervisor: Supervisor,
}

impl Port {
    async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((socket, from)) => self.admit(socket, from.ip()),
                Err(error) => {
                    tracing::warn!(%error, "the relay cannot accept; it tries again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, socket: TcpStream, source: IpAddr) {
        match self.bounds.take(source) {
            Ok(share) => {
                let port = self.clone();
                self.supervisor.spawn("relay-connection", async move {
                    tokio::select! {
                        () = port.carry(socket) => {}
                        () = port.stop.cancelled() => {}
                    }
                    drop(share);
                });
            }
            // Dropping the socket tells the sandbox at once.
            Err(why) => self.metrics.relay_refused(self.target.name, why),
        }
    }

    async fn carry(&self, mut inside: TcpStream) {
        let address = self.target.address.load_full();
        let connect = TcpStream::connect((address.host.as_str(), address.port));
        let mut outside = match tokio::time::timeout(CONNECT, connect).await {
            Ok(Ok(outside)) => outside,
            Ok(Err(error)) => {
                tracing::debug!(target = self.target.name, %address, %error, "the relay's target does not answer");
                return self.metrics.relay_refused(self.target.name, "unreachable");
            }
            Err(_) => return self.metrics.relay_refused(self.target.name, "timeout"),
        };
        for socket in [&inside, &outside] {
            wolfpack_rpc::server::tune_raw(socket);
        }
        let mut open = Open::new(self.target.name, &self.metrics);
        // Half-close passes through; an error of one side ends both.
        let copied = tokio::io::copy_bidirectional_with_sizes(
            &mut inside,
            &mut outside,
            COPY_BUFFER,
            COPY_BUFFER,
        );
        open.bytes = copied.await.unwrap_or_default();
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Open {
    target: &'static str,
    metrics: Metrics,
    bytes: (u64, u64),
}

impl Open {
    fn new(target: &'static str, metrics: &Metrics) -> Self {
        metrics.relay_opened(target);
        Self { target, metrics: metrics.clone(), bytes: (0, 0) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.relay_closed(self.target, self.bytes.0, self.bytes.1);
    }
}

#[cfg(test)]
mod tests;

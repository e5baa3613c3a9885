//! The way from the wolf's container to the control plane: two ports on the
//! gateway address of the container's own bridge, and only there, whose bytes
//! go to the loopback listeners. TLS stays end to end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::{BoxError, Context, HasTelemetry as _, Supervisor};

use super::super::config::DevConfig;
use super::super::parts::Parts;
use super::super::services::Fleet;
use super::record::Record;

/// Connections at a time, over both ports: each sandbox holds one or two.
const CONNECTIONS: usize = 4_096;
/// The target is on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// After an accept that failed (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The ports that were taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) broker: u16,
}

/// Listens on the ports of the last start if they are free, and relays until
/// the fleet stops.
pub(super) async fn start(
    config: &DevConfig,
    fleet: &Fleet,
    parts: &mut Parts,
    bridge: Ipv4Addr,
    record: &Record,
) -> Result<Ports, BoxError> {
    let gateway = bind(bridge, record.gateway_port.unwrap_or(8443)).await?;
    let broker = bind(bridge, record.broker_port.unwrap_or(8444)).await?;
    let ports =
        Ports { gateway: gateway.local_addr()?.port(), broker: broker.local_addr()?.port() };
    let context = Context::new("wolf-relay", config.telemetry())?;
    let supervisor = context.supervisor.clone();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    for (listener, target) in [(gateway, fleet.tls_local()), (broker, fleet.agents_local())] {
        supervisor.spawn("wolf-relay", accept(listener, target, room.clone(), supervisor.clone()));
    }
    let stopped = supervisor.token();
    parts.run("wolf-relay", context, async move {
        stopped.cancelled().await;
        Ok(())
    });
    Ok(ports)
}

async fn bind(bridge: Ipv4Addr, port: u16) -> Result<TcpListener, BoxError> {
    let at = |port| SocketAddr::new(IpAddr::V4(bridge), port);
    let bound = match TcpListener::bind(at(port)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => TcpListener::bind(at(0)).await,
        other => other,
    };
    bound.map_err(|error| {
        format!(
            "cannot listen on {bridge}, the engine's bridge for the wolf: {error}; if the engine is rootless or on another machine, use --wolf engine"
        )
        .into()
    })
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    room: Arc<Semaphore>,
    supervisor: Supervisor,
) {
    let stop = supervisor.token();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, permit) = match (accepted, room.clone().try_acquire_owned()) {
            (Ok((stream, _)), Ok(permit)) => (stream, permit),
            // Dropped at once: the peer sees it closed, and tries again later.
            (Ok(_), Err(_)) => {
                tracing::warn!(limit = CONNECTIONS, "the wolf's relay is full");
                continue;
            }
            (Err(error), _) => {
                tracing::debug!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let stop = stop.clone();
        supervisor.spawn("wolf-relay", async move {
            if let Err(error) = splice(stream, target, &stop).await {
                tracing::debug!(%error, %target, "a relayed connection ended");
            }
            drop(permit);
        });
    }
}

async fn splice(
    mut from: TcpStream,
    target: SocketAddr,
    stop: &CancellationToken,
) -> io::Result<()> {
    let connect = tokio::time::timeout(CONNECT, TcpStream::connect(target));
    let mut to = connect.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        copied = tokio::io::copy_bidirectional(&mut from, &mut to) => copied.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use wolfpack_runtime::Telemetry;

    #[tokio::test]
    async fn bytes_and_half_closes_pass_and_a_stop_ends_it() -> Result<(), BoxError> {
        let server = TcpListener::bind("127.0.0.1:0").await?;
        let target = server.local_addr()?;
        let taken = bind(Ipv4Addr::LOCALHOST, 0).await?;
        let fallback = bind(Ipv4Addr::LOCALHOST, taken.local_addr()?.port()).await?;
        assert_ne!(fallback.local_addr()?.port(), taken.local_addr()?.port());

        let supervisor = Supervisor::new(Telemetry::disabled("test"));
        let address = fallback.local_addr()?;
        let room = Arc::new(Semaphore::new(1));
        supervisor.spawn("relay", accept(fallback, target, room, supervisor.clone()));
        let mut client = TcpStream::connect(address).await?;
        let (mut served, _) = server.accept().await?;
        client.write_all(b"hello").await?;
        client.shutdown().await?;
        let mut got = Vec::new();
        served.read_to_end(&mut got).await?;
        assert_eq!(got, b"hello");
        served.write_all(b"bye").await?;

        // One is the limit: the second is closed without an answer.
        let mut second = TcpStream::connect(address).await?;
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);

        supervisor.shutdown(Duration::from_secs(5)).await;
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert!(TcpStream::connect(address).await.is_err());
        Ok(())
    }
}

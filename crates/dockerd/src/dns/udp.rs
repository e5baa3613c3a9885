//! Questions over UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::{Shared, Transport};

/// The longest question; real ones are far below.
const QUESTION: usize = 4_096;
/// After an error of the socket itself.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket on exactly this address, be it there yet or not.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    free(&socket, address)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Lets a socket be bound to the address of a bridge that is not there yet.
pub(super) fn free(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    }
}

pub(super) async fn serve(socket: UdpSocket, shared: Shared) {
    let socket = Arc::new(socket);
    let mut answering = JoinSet::new();
    let mut buffer = vec![0; QUESTION + 1];
    loop {
        let (length, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "a question cannot be read");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(_) = answering.join_next() => continue,
        };
        if length > QUESTION {
            continue;
        }
        let Some(pass) = shared.udp.enter(from.ip()) else {
            tracing::debug!(%from, "too many questions at a time; one is dropped");
            continue;
        };
        let (message, socket, shared) = (buffer[..length].to_vec(), socket.clone(), shared.clone());
        answering.spawn(async move {
            if let Some(answer) = shared.answer(&message, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, from).await
            {
                tracing::debug!(%error, %from, "an answer cannot be sent");
            }
            drop(pass);
        });
    }
}

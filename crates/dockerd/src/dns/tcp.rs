//! Questions over TCP: a length of two octets before each message.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Shared, Transport, udp};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// The longest question.
const QUESTION: usize = 8_192;
/// How long a connection may be idle, or take for one message.
const IDLE: Duration = Duration::from_secs(10);
/// After an error of the listener itself.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on exactly this address, be it there yet or not.
pub(super) fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    udp::free(&socket, address)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(super) async fn serve(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Some(pass) = shared.tcp.enter(from.ip()) else {
            tracing::debug!(%from, "too many connections at a time; one is closed");
            continue;
        };
        let shared = shared.clone();
        connections.spawn(async move {
            if let Err(error) = converse(stream, &shared).await {
                tracing::debug!(%error, %from, "a connection ended");
            }
            drop(pass);
        });
    }
}

/// One question after the other, until the other side is done or idle.
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Some(message) = timeout(IDLE, read(&mut stream, QUESTION)).await?? else {
            return Ok(());
        };
        match shared.answer(&message, Transport::Tcp).await {
            Some(answer) => timeout(IDLE, write(&mut stream, &answer)).await??,
            // What is no question is not going to become one.
            None => return Ok(()),
        }
    }
}

/// One message; `None` at the end of the stream.
pub(super) async fn read(stream: &mut TcpStream, most: usize) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// One message, in one piece.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"))?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

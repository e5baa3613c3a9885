//! Asking name servers, by UDP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::ResolveError;
use super::message::{Answer, Kind, answer, question};

/// A server that has not answered by then is asked again, or another is.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// As in the C library.
const MAX_SERVERS: usize = 3;
const PORT: u16 = 53;

/// The name servers of a `resolv.conf`.
pub(super) fn servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .take(MAX_SERVERS)
        .collect()
}

/// Addresses of a name, IPv4 first; empty when it has none.
pub(super) async fn lookup(
    servers: &[SocketAddr],
    name: &str,
) -> Result<Vec<IpAddr>, ResolveError> {
    let (four, six) =
        tokio::join!(ask_all(servers, name, Kind::A), ask_all(servers, name, Kind::Aaaa));
    match (four, six) {
        (Ok(mut four), Ok(six)) => {
            four.extend(six);
            Ok(four)
        }
        (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

async fn ask_all(
    servers: &[SocketAddr],
    name: &str,
    kind: Kind,
) -> Result<Vec<IpAddr>, ResolveError> {
    let mut last = None;
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        let id = fresh_id();
        let question =
            question(id, name, kind).ok_or_else(|| ResolveError::Name(name.to_owned()))?;
        match timeout(PATIENCE, ask(*server, &question)).await {
            Ok(Ok(Answer::Addresses(addresses))) => return Ok(addresses),
            Ok(Ok(Answer::Failed)) => {
                last = Some(io::Error::other(format!("{server} could not say")));
            }
            Ok(Err(error)) => last = Some(error),
            Err(_elapsed) => {
                last = Some(io::Error::new(io::ErrorKind::TimedOut, server.to_string()));
            }
        }
    }
    match last {
        Some(source) => Err(ResolveError::Servers { name: name.to_owned(), source }),
        None => Ok(Vec::new()),
    }
}

/// The socket is connected, so the kernel takes only what comes from the
/// server; its port and the id are random.
async fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Answer> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut message = [0_u8; 1500];
    loop {
        let length = socket.recv(&mut message).await?;
        if let Some(answer) = answer(question, &message[..length]) {
            return Ok(answer);
        }
    }
}

fn fresh_id() -> u16 {
    let random = uuid::Uuid::new_v4().into_bytes();
    u16::from_be_bytes([random[0], random[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 127.0.0.11\nnameserver fd00::1\nnameserver bad\n\
                    options ndots:0\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n";
        let read: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["127.0.0.11:53", "[fd00::1]:53", "1.1.1.1:53"]);
    }

    /// Answers A questions with one address and the rest with none, after a
    /// forged answer that must be passed over.
    async fn server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut bytes = [0_u8; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                let question = &bytes[..length];
                let wants_four = question[length - 3] == 1;
                let mut reply = question.to_vec();
                reply[2..4].copy_from_slice(&[0x81, 0x80]);
                if wants_four {
                    reply[7] = 1;
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 9, 8, 7]);
                }
                let mut forged = reply.clone();
                forged[0] ^= 1;
                socket.send_to(&forged, from).await.unwrap();
                socket.send_to(&reply, from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_silent_server_is_passed_over() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = [silent.local_addr().unwrap(), server().await];
        let found = lookup(&servers, "wolfpack.internal").await.unwrap();
        assert_eq!(found, ["10.9.8.7".parse::<IpAddr>().unwrap()]);
        assert!(matches!(lookup(&servers[..1], "x").await, Err(ResolveError::Servers { .. })));
        assert!(lookup(&[], "x").await.unwrap().is_empty(), "without servers nothing is known");
    }
}

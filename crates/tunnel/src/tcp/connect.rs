//! From a port or a host to a connected socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wolfpack_types::{Fault, Reason};

use super::Host;
use super::addresses::{Denied, denied};
use super::resolve::Resolve;

/// How long a name and each address may take. The dial's own deadline bounds
/// all of it.
const EACH: Duration = Duration::from_secs(5);
/// The most addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// Connects to a port of this host's loopback.
pub(super) async fn loopback(port: NonZeroU16, of: &str) -> Result<TcpStream, Fault> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        match connect(SocketAddr::new(address, port.get())).await {
            Ok(socket) => return Ok(socket),
            Err(error) if is_full(&error) => return Err(full(error)),
            // A host without IPv6 says so; that nothing listens is the news.
            Err(error) if address.is_ipv4() || error.kind() == io::ErrorKind::ConnectionRefused => {
                last = error;
            }
            Err(_) => {}
        }
    }
    let words = match last.kind() {
        io::ErrorKind::ConnectionRefused => format!(
            "nothing listens at port {port} of the {of}'s loopback; start the program, and let it listen on 127.0.0.1 or on all addresses"
        ),
        _ => format!("port {port} of the {of}'s loopback does not answer ({last})"),
    };
    Err(Fault::new(Reason::TargetUnreachable, words).caused_by(last))
}

/// Connects to a host of the policy: its name is asked for once, and only
/// addresses that were checked are dialed.
pub(super) async fn host(
    host: &Host,
    resolver: &dyn Resolve,
    setting: &str,
) -> Result<TcpStream, Fault> {
    let unreachable = |words: String| Fault::new(Reason::TargetUnreachable, words);
    let found = match timeout(EACH, resolver.resolve(&host.name)).await {
        Ok(Ok(found)) if !found.is_empty() => found,
        Ok(Ok(_)) => return Err(unreachable(format!("{} has no address", host.name))),
        Ok(Err(error)) => {
            let words = format!("{} has no address here; look at {setting}", host.name);
            return Err(unreachable(words).caused_by(error));
        }
        Err(late) => {
            let words = format!("nobody said in time what the address of {} is", host.name);
            return Err(unreachable(words).caused_by(late));
        }
    };
    let addresses = check(host, &found).map_err(|why| {
        let words = format!(
            "{} leads to {why}, where nothing is dialed for a name; give another host in {setting}",
            host.name
        );
        Fault::new(Reason::TargetForbidden, words)
    })?;
    let mut last = None;
    for address in addresses {
        match connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) if is_full(&error) => return Err(full(error)),
            Err(error) => last = Some(error),
        }
    }
    let last = last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    let words = match last.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {host}; start the program there, or set {setting}")
        }
        _ => format!("{host} does not answer ({last}); look at it, or set {setting}"),
    };
    Err(unreachable(words).caused_by(last))
}

/// The addresses that may be dialed; why none may.
fn check(host: &Host, found: &[IpAddr]) -> Result<Vec<SocketAddr>, Denied> {
    let mut why = Denied::NoHost;
    let mut allowed = Vec::new();
    for address in found {
        match denied(*address) {
            Some(Denied::Loopback) if host.own => {}
            Some(denied) => {
                why = denied;
                continue;
            }
            None => {}
        }
        allowed.push(SocketAddr::new(*address, host.port.get()));
    }
    allowed.truncate(ADDRESSES);
    if allowed.is_empty() { Err(why) } else { Ok(allowed) }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    let under_way = match socket.connect(&address.into()) {
        Ok(()) => false,
        // On this machine it is there by now, whatever the kernel calls it: to wait
        // until the runtime says so is a turn of everybody's.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {
            socket.peer_addr().is_err()
        }
        Err(error) => return Err(error),
    };
    let socket = TcpStream::from_std(socket.into())?;
    if under_way {
        timeout(EACH, socket.writable()).await??;
        socket.take_error()?.map_or(Ok(()), Err)?;
    }
    not_itself(socket, address)
}

/// A port that nobody listens at may be given to the very socket that dials it,
/// which then is connected to itself: nobody is there.
fn not_itself(socket: TcpStream, dialed: SocketAddr) -> io::Result<TcpStream> {
    if socket.local_addr()? == dialed {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

fn full(error: io::Error) -> Fault {
    let words = "the agent has no file descriptors left; end connections, or raise its limit";
    Fault::new(Reason::DialsLimited, words).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(own: bool) -> Host {
        Host { name: "x".into(), port: NonZeroU16::MIN, own }
    }

    #[tokio::test]
    async fn a_socket_that_met_itself_met_nobody() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let mirror = socket.connect(address).await.unwrap();
        let error = not_itself(mirror, address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn what_is_denied_is_left_out_and_nothing_but_that_is_a_refusal() {
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let kept = check(&host(false), &ips(&["127.0.0.1", "10.0.0.7", "169.254.169.254"]));
        assert_eq!(kept, Ok(vec!["10.0.0.7:1".parse().unwrap()]));
        let none = check(&host(false), &ips(&["::ffff:169.254.169.254"]));
        assert_eq!(none, Err(Denied::LinkLocal));
        // Even where loopback is meant, the rest stays denied.
        let own = check(&host(true), &ips(&["::1", "fe80::1", "0.0.0.0"]));
        assert_eq!(own, Ok(vec!["[::1]:1".parse().unwrap()]));
        let many = vec!["10.0.0.7".parse().unwrap(); 100];
        assert_eq!(check(&host(false), &many).unwrap().len(), ADDRESSES);
    }
}

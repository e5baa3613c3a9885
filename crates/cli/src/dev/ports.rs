//! Ports for services that must know each other's address before they listen.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Free loopback addresses, all different: they are held until all are found.
/// Another process may still take one before its service binds it; the bind
/// then fails and says so.
pub(super) fn free_loopback<const COUNT: usize>() -> io::Result<[SocketAddr; COUNT]> {
    let mut held = Vec::with_capacity(COUNT);
    let mut found = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    for address in &mut found {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(found)
}

/// The address with a free port in place of 0.
pub(super) fn with_port(address: SocketAddr) -> io::Result<SocketAddr> {
    if address.port() != 0 {
        return Ok(address);
    }
    TcpListener::bind(address)?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_different_and_can_be_bound() {
        let ports = free_loopback::<4>().unwrap();
        for (at, address) in ports.iter().enumerate() {
            assert!(!ports[..at].contains(address));
            TcpListener::bind(address).unwrap();
        }
        let given = "127.0.0.1:4711".parse().unwrap();
        assert_eq!(with_port(given).unwrap(), given);
        assert_ne!(with_port("127.0.0.1:0".parse().unwrap()).unwrap().port(), 0);
    }
}

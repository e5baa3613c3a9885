//! `/proc/net/fib_trie`: the routes of every table. `/proc/net/route` has those
//! of the main table only, and VPNs use others: Tailscale 52, `WireGuard`'s
//! wg-quick 51820, strongSwan 220.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FibRoute {
    pub(super) net: Ipv4Net,
    /// Whether it is of the tables `Main` and `Local`, and not of one that
    /// somebody made.
    pub(super) well_known: bool,
}

/// Reads the text of the file: a line `Main:`, `Local:` or `Id 52:` before each
/// table, `|-- ADDRESS` for each leaf, and below it `/LEN SCOPE TYPE` for each
/// of its routes. Whatever the type is: an unreachable or a blackholed network
/// is somebody's, too.
pub(super) fn parse(text: &str) -> io::Result<Vec<FibRoute>> {
    let mut routes = Vec::new();
    let mut well_known = None;
    let mut leaf = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            let address: Ipv4Addr = address.parse().map_err(|_| odd(line))?;
            leaf = Some(address);
        } else if let Some(rest) = line.strip_prefix('/') {
            let prefix = rest.split_ascii_whitespace().next().and_then(|len| len.parse().ok());
            let (Some(prefix), Some(address), Some(well_known)) = (prefix, leaf, well_known) else {
                return Err(odd(line));
            };
            let net = Ipv4Net::new(address, prefix).map_err(|_| odd(line))?.trunc();
            routes.push(FibRoute { net, well_known });
        } else if let Some(table) = line.strip_suffix(':') {
            well_known = Some(matches!(table, "Main" | "Local"));
            leaf = None;
        } else if !line.is_empty() && !line.starts_with("+-- ") {
            return Err(odd(line));
        }
    }
    Ok(routes)
}

fn odd(line: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("/proc/net/fib_trie has a line that is not known: {line:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAILSCALE: &str = "Id 52:
  |-- 100.64.0.0
     /10 link UNICAST
Main:
  +-- 0.0.0.0/0 2 0 2
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 172.19.0.0
        /16 link UNICAST
        /12 universe UNREACHABLE
Local:
  +-- 172.19.0.0/16 2 0 2
     |-- 172.19.0.2
        /32 host LOCAL
";

    #[test]
    fn routes_of_every_table_and_type_are_read() {
        let routes = parse(TAILSCALE).unwrap();
        let said: Vec<String> = routes.iter().map(|route| route.net.to_string()).collect();
        let expected =
            ["100.64.0.0/10", "0.0.0.0/0", "172.19.0.0/16", "172.16.0.0/12", "172.19.0.2/32"];
        assert_eq!(said, expected);
        let known: Vec<bool> = routes.iter().map(|route| route.well_known).collect();
        assert_eq!(known, [false, true, true, true, true]);
    }

    #[test]
    fn a_form_that_is_not_known_is_an_error_and_never_an_empty_list() {
        for odd in [
            "Main:\n  |-- ten\n",
            "Main:\n     /8 link UNICAST\n",
            "<html>\n",
            "Main:\n |-- 10.0.0.0\n /33 link UNICAST",
        ] {
            assert!(parse(odd).is_err(), "{odd:?}");
        }
        assert_eq!(parse("").unwrap(), []);
    }
}

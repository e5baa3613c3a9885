//! `/proc/net/route`: the main table, with the device of each route.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// One route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceRoute {
    pub(super) device: String,
    pub(super) net: Ipv4Net,
    /// Where packets are handed to; absent when the network is on the link.
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) metric: u32,
}

/// Reads the text of the file. Addresses are hexadecimal in the machine's byte
/// order.
pub(super) fn parse(text: &str) -> io::Result<Vec<DeviceRoute>> {
    text.lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            route(line).ok_or_else(|| {
                let words = format!("/proc/net/route has a line that is not known: {line:?}");
                io::Error::new(io::ErrorKind::InvalidData, words)
            })
        })
        .collect()
}

fn route(line: &str) -> Option<DeviceRoute> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let &[device, destination, gateway, _, _, _, metric, mask, ..] = fields.as_slice() else {
        return None;
    };
    let net = Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?.trunc();
    let gateway = address(gateway).filter(|gateway| !gateway.is_unspecified());
    Some(DeviceRoute { device: device.to_owned(), net, gateway, metric: metric.parse().ok()? })
}

fn address(hex: &str) -> Option<Ipv4Addr> {
    u32::from_str_radix(hex, 16).ok().map(|bits| Ipv4Addr::from(bits.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
*\t0000000A\t00000000\t0201\t0\t0\t0\t000000FF\t0\t0\t0
";

    #[cfg(target_endian = "little")]
    #[test]
    fn routes_are_read_with_their_devices() {
        let routes = parse(TEXT).unwrap();
        assert_eq!(routes[0].gateway, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!((routes[0].net.prefix_len(), routes[0].metric), (0, 100));
        assert_eq!(routes[1].net.to_string(), "172.17.0.0/16");
        assert_eq!((routes[1].device.as_str(), routes[1].gateway), ("docker0", None));
        assert_eq!(routes[2].net.to_string(), "10.0.0.0/8");
    }

    #[test]
    fn a_line_that_is_not_known_is_an_error() {
        assert!(parse("Iface\neth0\t00\n").is_err());
        assert!(parse("Iface\neth0 00000000 0 0 0 0 0 000000FG 0 0 0\n").is_err());
        assert_eq!(parse("").unwrap(), []);
    }
}

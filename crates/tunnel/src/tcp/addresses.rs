//! Which addresses an agent never dials for a name. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The agent's own host.
    Loopback,
    /// Only on one link; clouds hand out credentials there (169.254.169.254).
    LinkLocal,
    /// A metadata service that is not on the link.
    Metadata,
    /// No address of one host: unspecified, multicast, broadcast, reserved.
    NoHost,
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a metadata service of a cloud",
            Self::NoHost => "the address of no single host",
        })
    }
}

/// Metadata services outside of the link-local ranges: Alibaba, Azure.
const METADATA_V4: [Ipv4Addr; 2] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// The same of Amazon, Google and Oracle.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// Why an address is not dialed; `None` for one that may be. An IPv4 address
/// inside an IPv6 one is judged as what it is.
#[must_use]
pub fn denied(address: IpAddr) -> Option<Denied> {
    match address {
        IpAddr::V4(address) => denied_v4(address),
        IpAddr::V6(address) => match inner_v4(address) {
            Some(inner) => denied_v4(inner),
            None => denied_v6(address),
        },
    }
}

fn denied_v4(address: Ipv4Addr) -> Option<Denied> {
    let [first, ..] = address.octets();
    if address.is_loopback() {
        Some(Denied::Loopback)
    } else if address.is_link_local() {
        Some(Denied::LinkLocal)
    } else if METADATA_V4.contains(&address) {
        Some(Denied::Metadata)
    } else if first == 0 || first >= 224 {
        // "This network", which Linux takes for loopback, and all above unicast.
        Some(Denied::NoHost)
    } else {
        None
    }
}

fn denied_v6(address: Ipv6Addr) -> Option<Denied> {
    if address.is_loopback() {
        Some(Denied::Loopback)
    } else if address.is_unicast_link_local() {
        Some(Denied::LinkLocal)
    } else if METADATA_V6.contains(&address) {
        Some(Denied::Metadata)
    } else if address.is_unspecified() || address.is_multicast() {
        Some(Denied::NoHost)
    } else {
        None
    }
}

/// The IPv4 address that an IPv6 one stands for or leads to: mapped, compatible,
/// translated (64:ff9b::/96 and 64:ff9b:1::/48) and 6to4.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        // Loopback and unspecified are IPv6's own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 1, _, _, _, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(text: &str) -> Option<Denied> {
        denied(text.parse().unwrap())
    }

    #[test]
    fn what_is_not_a_host_elsewhere_is_denied_however_it_is_written() {
        for (text, why) in [
            ("127.0.0.1", Denied::Loopback),
            ("127.255.0.9", Denied::Loopback),
            ("::1", Denied::Loopback),
            ("::ffff:127.0.0.1", Denied::Loopback),
            ("::127.0.0.1", Denied::Loopback),
            ("64:ff9b::127.0.0.1", Denied::Loopback),
            ("2002:7f00:1::", Denied::Loopback),
            ("169.254.169.254", Denied::LinkLocal),
            ("169.254.0.1", Denied::LinkLocal),
            ("::ffff:169.254.169.254", Denied::LinkLocal),
            ("::ffff:0:169.254.169.254", Denied::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Denied::LinkLocal),
            ("64:ff9b:1::a9fe:a9fe", Denied::LinkLocal),
            ("2002:a9fe:a9fe::1", Denied::LinkLocal),
            ("fe80::1", Denied::LinkLocal),
            ("febf::1", Denied::LinkLocal),
            ("100.100.100.200", Denied::Metadata),
            ("168.63.129.16", Denied::Metadata),
            ("fd00:ec2::254", Denied::Metadata),
            ("fd20:ce::254", Denied::Metadata),
            ("fd00:c1::a9fe:a9fe", Denied::Metadata),
            ("::ffff:168.63.129.16", Denied::Metadata),
            ("0.0.0.0", Denied::NoHost),
            ("0.1.2.3", Denied::NoHost),
            ("::", Denied::NoHost),
            ("::ffff:0.0.0.0", Denied::NoHost),
            ("224.0.0.1", Denied::NoHost),
            ("255.255.255.255", Denied::NoHost),
            ("240.0.0.1", Denied::NoHost),
            ("ff02::1", Denied::NoHost),
        ] {
            assert_eq!(judge(text), Some(why), "{text}");
        }
        for text in [
            "10.0.0.7",
            "192.168.1.1",
            "172.16.0.1",
            "8.8.8.8",
            "fd00::7",
            "2001:db8::1",
            "1.1.1.1",
        ] {
            assert_eq!(judge(text), None, "{text}");
        }
    }

    proptest! {
        /// No spelling of an IPv4 address gets further than the address itself.
        #[test]
        fn an_address_within_another_is_judged_as_itself(octets: [u8; 4]) {
            let plain = Ipv4Addr::from(octets);
            let bits = u128::from(u32::from(plain));
            let spellings = [
                bits | 0xffff_0000_0000,
                bits | 0xffff_0000_0000_0000,
                bits | 0x0064_ff9b << 96,
                bits | 0x0064_ff9b_0001 << 80,
                bits << 80 | 0x2002 << 112,
            ];
            for spelling in spellings.map(Ipv6Addr::from) {
                prop_assert_eq!(denied(spelling.into()), denied(plain.into()), "{}", spelling);
            }
        }
    }
}

//! `/etc/resolv.conf`, as far as it says where names are resolved.

use std::net::{IpAddr, Ipv4Addr};

/// The most nameservers that are read: as many as the C library does, and some
/// for files that other resolvers read.
const NAMESERVERS: usize = 8;

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The resolvers, in order.
    pub nameservers: Vec<IpAddr>,
    /// Domains that names are completed with, in order.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads the text of the file. Lines that are not known are passed over, as
    /// the C library does; of several `search` or `domain` lines the last
    /// counts. An IPv6 address with a zone is passed over: there is no way to
    /// carry the zone on.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    if let Some(address) = address
                        && found.nameservers.len() < NAMESERVERS
                        && !found.nameservers.contains(&address)
                    {
                        found.nameservers.push(address);
                    }
                }
                Some("search" | "domain") => {
                    found.search = words.filter(|word| *word != ".").map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        found
    }

    /// Its IPv4 nameservers that are not this machine itself.
    pub(crate) fn remote_v4(nameservers: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
        nameservers.iter().filter_map(|address| match address {
            IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => {
                Some(*address)
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domains_are_read_as_the_c_library_does() {
        let text = "# by hand\nsearch old.example\nnameserver 127.0.0.11\nnameserver 10.1.2.3 # corp\n\
            nameserver fd00::1\nnameserver fe80::1%eth0\nnameserver 10.1.2.3\nnameserver nonsense\n\
            options ndots:0\nsearch corp.example eu.corp.example\n";
        let read = ResolvConf::parse(text);
        let addresses: Vec<String> = read.nameservers.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.11", "10.1.2.3", "fd00::1"]);
        assert_eq!(read.search, ["corp.example", "eu.corp.example"]);
        let remote: Vec<Ipv4Addr> = ResolvConf::remote_v4(&read.nameservers).collect();
        assert_eq!(remote, [Ipv4Addr::new(10, 1, 2, 3)]);
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
        assert_eq!(ResolvConf::parse("search ."), ResolvConf::default());
    }
}

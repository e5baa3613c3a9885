//! `/etc/hosts`.

use std::net::IpAddr;

/// Addresses of a name, IPv4 first, in the order of the lines. Names do not
/// differ by case; a dot at the end does not count.
pub(super) fn lookup(hosts: &str, name: &str) -> Vec<IpAddr> {
    let wanted = name.trim_end_matches('.');
    let mut found = Vec::new();
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(wanted))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_manual_says() {
        let hosts = "# top\n127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # six\n\
                     10.0.0.9 a.example  Wolfpack.Internal\nfe80::1%eth0 wolfpack.internal\n#10.0.0.8 wolfpack.internal\nnonsense wolfpack.internal\n";
        let found = |name| lookup(hosts, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(found("wolfpack.internal"), ["10.0.0.9"]);
        assert_eq!(found("WOLFPACK.internal."), ["10.0.0.9"]);
        assert!(found("internal").is_empty());
        assert!(found("six").is_empty());
    }
}

//! So many places for each address, that no single one has all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Who holds how many places now. As small as what is held: an address without
/// any is forgotten.
pub(crate) struct Shares {
    most: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// One place of an address, until it is dropped.
pub(crate) struct Share {
    shares: Arc<Shares>,
    of: IpAddr,
}

impl Shares {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// Takes a place; `None` when the address has its share already.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let of = network(address);
        let mut held = self.held.lock();
        let count = held.get(&of).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        held.insert(of, count + 1);
        drop(held);
        Some(Share { shares: Arc::clone(self), of })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        if let Some(count) = held.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.of);
            }
        }
    }
}

/// An IPv6 host has a whole /64 of addresses.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_others_have_theirs() {
        let shares = Shares::new(2);
        let first = shares.take(ip("10.0.0.1")).unwrap();
        let second = shares.take(ip("::ffff:10.0.0.1")).unwrap();
        assert!(shares.take(ip("10.0.0.1")).is_none());
        assert!(shares.take(ip("10.0.0.2")).is_some());
        drop(first);
        let third = shares.take(ip("10.0.0.1")).unwrap();
        assert!(shares.take(ip("10.0.0.1")).is_none());
        drop((second, third));
        assert!(shares.held.lock().is_empty(), "nobody is remembered for nothing");
    }

    #[test]
    fn addresses_of_one_host_share_a_bucket() {
        let ip = |text: &str| network(ip(text));
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
        assert_ne!(ip("10.0.0.1"), ip("10.0.0.2"));
    }
}

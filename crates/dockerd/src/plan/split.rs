//! How a range is cut into the bridge and the pools.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::AddressPool;

/// The largest and the smallest range that is used, as prefix lengths.
pub(super) const LARGEST: u8 = 16;
/// As above; smaller ones only where the operator says so.
pub(super) const SMALLEST: u8 = 22;
/// The smallest range an operator may give.
pub(super) const SMALLEST_GIVEN: u8 = 24;

/// Of the sixteen parts of a range, the first is the default bridge's, the
/// second one network (the first that is made: a wolf's shared bridge), and all
/// others are cut into small ones.
const PARTS: u8 = 4;

/// Networks of a wolf's engine have one sandbox each.
const SMALL_OF_WOLF: u8 = 26;
/// Networks of a sandbox's engine are people's compose projects.
const SMALL_OF_SANDBOX: u8 = 24;
/// Ranges smaller than this have no room for networks of /24.
const ROOMY: u8 = 18;

/// The address of the default bridge, and the pools, in a range of a /16 to a
/// /24. They never overlap one another.
pub(super) fn split(range: Ipv4Net, depth: u8) -> (Ipv4Net, Vec<AddressPool>) {
    let prefix = range.prefix_len();
    let part = prefix + PARTS;
    let start = u32::from(range.network());
    let at = |index: u32, prefix: u8| {
        let address = Ipv4Addr::from(start + (index << (32 - part)));
        Ipv4Net::new_assert(address, prefix)
    };
    let bridge = Ipv4Net::new_assert(Ipv4Addr::from(start + 1), part);
    let small = if depth > 1 && prefix <= ROOMY { SMALL_OF_SANDBOX } else { SMALL_OF_WOLF };
    let mut pools = vec![AddressPool { base: at(1, part), size: part }];
    // The upper half, then the second quarter, then the second eighth.
    for (first, prefix) in [(8, prefix + 1), (4, prefix + 2), (2, prefix + 3)] {
        pools.push(AddressPool { base: at(first, prefix), size: small.max(prefix) });
    }
    (bridge, pools)
}

/// How many networks the pools have.
pub(super) fn networks(pools: &[AddressPool]) -> u32 {
    pools
        .iter()
        .map(|pool| {
            1u32.checked_shl(u32::from(pool.size.saturating_sub(pool.base.prefix_len())))
                .unwrap_or(0)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::overlap;
    use super::*;

    #[test]
    fn every_size_is_cut_without_overlap_and_without_waste() {
        for prefix in LARGEST..=SMALLEST_GIVEN {
            for depth in [1, 2] {
                let range = Ipv4Net::new_assert(Ipv4Addr::new(172, 20, 0, 0), prefix);
                let (bridge, pools) = split(range, depth);
                let mut nets = vec![bridge.trunc()];
                nets.extend(pools.iter().map(|pool| pool.base));
                for (i, a) in nets.iter().enumerate() {
                    assert!(range.contains(a), "{a} in {range}");
                    assert!(nets[i + 1..].iter().all(|b| !overlap(a, b)), "{nets:?}");
                }
                assert_eq!(Ipv4Net::aggregate(&nets), [range]);
                assert!(pools.iter().all(|p| p.size >= p.base.prefix_len() && p.size <= 28));
            }
        }
    }

    #[test]
    fn a_wolf_has_room_for_hundreds_of_engines() {
        let range: Ipv4Net = "172.20.0.0/16".parse().unwrap();
        let (bridge, pools) = split(range, 1);
        assert_eq!(bridge.to_string(), "172.20.0.1/20");
        assert_eq!(pools[0].base.to_string(), "172.20.16.0/20");
        assert_eq!(networks(&pools), 1 + 512 + 256 + 128);
        assert_eq!(networks(&split(range, 2).1), 1 + 128 + 64 + 32);
    }
}

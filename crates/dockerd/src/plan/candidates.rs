//! The ranges that engines of one depth choose from. Those of two depths never
//! overlap: an engine cannot see the networks of engines that are further away
//! than the next one, and need not.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::MAX_DEPTH;

/// The second range below 172.16.0.0/12, by depth. Docker itself begins at
/// 172.17, so those come last.
const SECOND: [u8; MAX_DEPTH as usize] = [28, 29, 30, 31, 16, 17, 18, 19];
/// Where in 10.0.0.0/8 the search begins: low numbers are what people take.
const TEN: u8 = 208;

/// The ranges of a depth (from 1), in order of preference; the second list only
/// when nothing of the first is free.
pub(super) fn of_depth(depth: u8) -> [Vec<Ipv4Net>; 2] {
    let index = depth.clamp(1, MAX_DEPTH) - 1;
    let mut ranges =
        vec![net([172, 20 + index, 0, 0], 16), net([172, SECOND[usize::from(index)], 0, 0], 16)];
    let up = (TEN..=u8::MAX - 7).step_by(8);
    let down = (0..TEN).step_by(8).rev();
    ranges.extend(up.chain(down).map(|first| net([10, first + index, 0, 0], 16)));
    ranges.push(net([192, 168, 32 * index, 0], 19));
    // Set aside for measuring networks: routed by few, and better than nothing
    // where a VPN takes every private range.
    let measuring = net([198, 18 + index / 4, 64 * (index % 4), 0], 18);
    [ranges, vec![measuring]]
}

fn net(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from(octets), prefix)
}

#[cfg(test)]
mod tests {
    use super::super::overlap;
    use super::*;

    #[test]
    fn depths_never_share_a_range_and_together_take_all_private_ones() {
        let all: Vec<(u8, Ipv4Net)> = (1..=MAX_DEPTH)
            .flat_map(|depth| of_depth(depth).concat().into_iter().map(move |net| (depth, net)))
            .collect();
        for (i, (_, a)) in all.iter().enumerate() {
            assert_eq!(a.trunc(), *a, "host bits");
            for (_, b) in &all[i + 1..] {
                assert!(!overlap(a, b), "{a} {b}");
            }
        }
        let merged = Ipv4Net::aggregate(&all.iter().map(|(_, net)| *net).collect());
        let merged: Vec<String> = merged.iter().map(ToString::to_string).collect();
        assert_eq!(merged, ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"]);
    }

    #[test]
    fn an_engine_of_a_wolf_container_prefers_172_20() {
        assert_eq!(of_depth(1)[0][0].to_string(), "172.20.0.0/16");
        assert_eq!(of_depth(2)[0][0].to_string(), "172.21.0.0/16");
    }
}

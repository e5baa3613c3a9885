//! The choice.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::error::list;
use super::split::{LARGEST, SMALLEST, SMALLEST_GIVEN, networks, split};
use super::{MAX_DEPTH, NetworkPlan, PlanError, Wanted, candidates, overlap};
use crate::outer::{Outer, ResolvConf};

/// IPv6 needs this much, and so do enough peers.
const MTU_MIN: u32 = 1280;
/// Where nothing is known.
const MTU_DEFAULT: u32 = 1500;
/// An IPv4 packet has no more.
const MTU_MAX: u32 = 65_535;
/// The largest range an operator may give.
const LARGEST_GIVEN: u8 = 8;

/// Ranges in which no bridge works, and why.
const NEVER: [(&str, &str); 4] = [
    ("0.0.0.0/8", "it is this network's own"),
    ("127.0.0.0/8", "it is the loopback"),
    ("169.254.0.0/16", "it is link-local, and clouds' metadata is there"),
    ("224.0.0.0/3", "it is multicast or reserved"),
];

/// What engines deeper inside must know of what is in use: the ranges they
/// choose from, and the one that carriers and VPNs use.
const HANDED_ON: [&str; 5] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "100.64.0.0/10"];

/// Plans the networks of an engine: inside the operator's range, or in the
/// first range of its depth that overlaps nothing in use. `kept`, the plan of
/// an earlier start, wins while it still overlaps nothing and is what is wanted
/// now; its MTU is chosen afresh.
///
/// # Errors
/// When there is no room, or the operator's range cannot be used; says what to
/// set.
pub fn plan(
    outer: &Outer,
    wanted: &Wanted,
    kept: Option<&NetworkPlan>,
) -> Result<NetworkPlan, PlanError> {
    if !(1..=MAX_DEPTH).contains(&wanted.depth) {
        return Err(PlanError::Depth(wanted.depth));
    }
    let pool = wanted.pool.map(usable).transpose()?;
    let mut reasons = Vec::new();
    let kept = kept.filter(|kept| kept.depth == wanted.depth && kept.well_formed());
    let taken = taken(outer, wanted, kept);
    if taken.is_empty() {
        reasons.push("no network is in use around this engine".to_owned());
    } else {
        reasons.push(format!("in use around this engine: {}", list(&taken)));
    }

    let (mtu, why) = mtu(outer.uplink_mtu, wanted.mtu);
    let planned = |bridge, pools, mut reasons: Vec<String>| {
        let pools: Vec<_> = pools;
        reasons.push(format!(
            "the bridge is {bridge}, and there is room for {} networks",
            networks(&pools)
        ));
        reasons.push(why.clone());
        NetworkPlan { bridge, pools, mtu, depth: wanted.depth, avoided: handed_on(&taken), reasons }
    };

    if let Some(kept) = kept {
        match still_right(kept, pool, wanted.depth, &taken) {
            Ok(()) => {
                reasons.push(format!(
                    "the plan of the last start, {}, is kept: it overlaps none of that",
                    list(&kept.networks())
                ));
                return Ok(planned(kept.bridge, kept.pools.clone(), reasons));
            }
            Err(why) => reasons.push(format!("the plan of the last start is given up: {why}")),
        }
    }

    let range = match pool {
        Some(pool) => {
            let range = within(&[pool], SMALLEST_GIVEN, &taken).ok_or_else(|| {
                let by = taken.iter().copied().filter(|net| overlap(net, &pool)).collect();
                PlanError::PoolTaken { pool, by }
            })?;
            reasons.push(format!("{range} is chosen: the operator said {pool}"));
            range
        }
        None => chosen(wanted.depth, &taken, &mut reasons)?,
    };
    let (bridge, pools) = split(range, wanted.depth);
    Ok(planned(bridge, pools, reasons))
}

/// A range of this depth that overlaps nothing, and why it is not the first.
fn chosen(depth: u8, taken: &[Ipv4Net], reasons: &mut Vec<String>) -> Result<Ipv4Net, PlanError> {
    let tiers = candidates::of_depth(depth);
    let found = tiers.iter().find_map(|ranges| within(ranges, SMALLEST, taken));
    let range = found.ok_or_else(|| PlanError::NoRoom { depth, by: taken.to_vec() })?;
    let ranges = tiers.concat();
    let passed: Vec<Ipv4Net> =
        ranges.into_iter().take_while(|candidate| !candidate.contains(&range)).collect();
    if !passed.is_empty() {
        let by: Vec<Ipv4Net> = taken
            .iter()
            .copied()
            .filter(|net| passed.iter().any(|candidate| overlap(candidate, net)))
            .collect();
        reasons.push(format!("passed over: {} (overlapping {})", list(&passed), list(&by)));
    }
    reasons.push(format!("{range} is chosen: the first range of depth {depth} that is free"));
    Ok(range)
}

/// The largest block of the ranges that overlaps nothing, the first of its size.
fn within(ranges: &[Ipv4Net], smallest: u8, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    // What cannot overlap a range need not be looked at for each of its blocks.
    let open: Vec<(&Ipv4Net, Vec<&Ipv4Net>)> = ranges
        .iter()
        .map(|range| (range, taken.iter().filter(|net| overlap(net, range)).collect()))
        .filter(|(range, near): &(_, Vec<&Ipv4Net>)| !near.iter().any(|net| net.contains(*range)))
        .collect();
    (LARGEST..=smallest).find_map(|size| {
        open.iter().find_map(|(range, near)| {
            range.subnets(size).ok()?.find(|block| !near.iter().any(|net| overlap(net, block)))
        })
    })
}

fn still_right(
    kept: &NetworkPlan,
    pool: Option<Ipv4Net>,
    depth: u8,
    taken: &[Ipv4Net],
) -> Result<(), String> {
    let nets = kept.networks();
    if let Some((own, other)) = nets
        .iter()
        .find_map(|own| taken.iter().find(|net| overlap(net, own)).map(|other| (own, other)))
    {
        return Err(format!("{own} overlaps {other}"));
    }
    let (ranges, whose) = match pool {
        Some(pool) => (vec![pool], "the operator's pool"),
        None => (candidates::of_depth(depth).concat(), "the ranges of its depth"),
    };
    match nets.iter().find(|net| !ranges.iter().any(|range| range.contains(*net))) {
        Some(outside) => Err(format!("{outside} is not in {whose}")),
        None => Ok(()),
    }
}

/// All that must not be overlapped, sorted.
fn taken(outer: &Outer, wanted: &Wanted, kept: Option<&NetworkPlan>) -> Vec<Ipv4Net> {
    let of_kept = |bridge: &&Ipv4Net| !kept.is_some_and(|kept| kept.made(bridge));
    let nameservers = ResolvConf::remote_v4(&outer.nameservers).map(Ipv4Net::from);
    let all: BTreeSet<Ipv4Net> = outer
        .routes
        .iter()
        .chain(outer.bridges.iter().filter(of_kept))
        .chain(&wanted.avoid)
        .copied()
        .chain(nameservers)
        .map(|net| net.trunc())
        .filter(|net| !crate::outer::is_default(net))
        .collect();
    all.into_iter().collect()
}

/// Never larger than the ranges: two halves of everything would be merged into
/// what looks like a default route.
fn handed_on(taken: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let ranges: Vec<Ipv4Net> = HANDED_ON.iter().filter_map(|range| known(range)).collect();
    let near: Vec<Ipv4Net> = taken
        .iter()
        .flat_map(|net| {
            let near = ranges.iter().filter(move |range| overlap(range, net));
            near.map(move |range| if net.contains(range) { *range } else { *net })
        })
        .collect();
    Ipv4Net::aggregate(&near)
}

fn usable(pool: Ipv4Net) -> Result<Ipv4Net, PlanError> {
    let pool = pool.trunc();
    let unfit = |why| Err(PlanError::PoolUnfit { pool, why });
    if !(LARGEST_GIVEN..=SMALLEST_GIVEN).contains(&pool.prefix_len()) {
        return unfit("it must be a /8 to a /24");
    }
    for (range, why) in NEVER {
        if known(range).is_some_and(|range| overlap(&range, &pool)) {
            return unfit(why);
        }
    }
    Ok(pool)
}

fn known(range: &str) -> Option<Ipv4Net> {
    range.parse().ok()
}

fn mtu(uplink: Option<u32>, most: Option<u32>) -> (u32, String) {
    let (seen, mut why) = match uplink {
        Some(mtu) => (mtu, "that of the uplink".to_owned()),
        None => (MTU_DEFAULT, "the usual one: there is no default route to see one of".to_owned()),
    };
    let mut mtu = seen;
    if let Some(most) = most.filter(|most| *most < mtu) {
        mtu = most;
        why = format!("as the operator said; that of the uplink is {seen}");
    }
    let bounded = mtu.clamp(MTU_MIN, MTU_MAX);
    if bounded != mtu {
        why = format!("not {mtu}: networks need at least {MTU_MIN}");
    }
    (bounded, format!("the MTU is {bounded}, {why}"))
}

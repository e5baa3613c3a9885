//! The planner against random surroundings.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;
use crate::outer::Outer;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn nets(text: &str) -> Vec<Ipv4Net> {
    text.split_whitespace().map(net).collect()
}

fn outer(routes: &str) -> Outer {
    Outer { routes: nets(routes), uplink_mtu: Some(1500), ..Outer::default() }
}

fn planned(routes: &str) -> NetworkPlan {
    plan(&outer(routes), &Wanted::at_depth(1), None).unwrap()
}

/// Nothing of the plan overlaps anything else.
fn apart(plan: &NetworkPlan, others: &[Ipv4Net]) -> Result<(), String> {
    let own = plan.networks();
    for (i, a) in own.iter().enumerate() {
        for b in own[i + 1..].iter().chain(others) {
            // Not by the planner's own means.
            if a.contains(b) || b.contains(a) {
                return Err(format!("{a} overlaps {b}"));
            }
        }
    }
    Ok(())
}

#[test]
fn an_empty_place_gives_172_20() {
    let plan = planned("");
    assert_eq!(plan.bridge, net("172.20.0.1/20"));
    assert!(plan.networks().iter().all(|own| net("172.20.0.0/16").contains(own)));
    assert_eq!((plan.mtu, plan.depth), (1500, 1));
}

#[test]
fn what_is_routed_is_passed_over_and_said_why() {
    for (routes, chosen) in [
        ("172.20.0.0/16", "172.28.0.0/16"),
        // One address is enough.
        ("172.20.255.255/32", "172.28.0.0/16"),
        ("172.16.0.0/12 100.64.0.0/10", "10.208.0.0/16"),
        ("172.16.0.0/12 10.0.0.0/8", "192.168.0.0/19"),
        ("172.16.0.0/12 10.0.0.0/8 192.168.0.0/24 192.168.1.0/24", "192.168.16.0/20"),
        // A VPN that takes all private ranges.
        ("172.16.0.0/12 10.0.0.0/8 192.168.0.0/16 100.64.0.0/10", "198.18.0.0/18"),
    ] {
        let plan = planned(routes);
        let own = Ipv4Net::aggregate(&plan.networks());
        assert_eq!(own, [net(chosen)], "{routes}");
        let said = plan.reasons.join("\n");
        assert!(said.contains(chosen), "{said}");
        assert!(said.contains("passed over: 172.20.0.0/16"), "{said}");
    }
}

#[test]
fn no_room_says_what_to_set() {
    let all = "172.16.0.0/12 10.0.0.0/8 192.168.0.0/16 198.18.0.0/15";
    let error = plan(&outer(all), &Wanted::at_depth(3), None).unwrap_err();
    assert!(matches!(error, PlanError::NoRoom { depth: 3, .. }));
    assert!(error.to_string().contains("set an address pool"), "{error}");
    let wanted = Wanted { pool: Some(net("100.100.0.0/16")), ..Wanted::at_depth(3) };
    let said = plan(&outer(all), &wanted, None).unwrap();
    assert!(net("100.100.0.0/16").contains(&said.bridge));
}

#[test]
fn an_operator_s_pool_is_used_or_refused_never_left() {
    let with = |pool: &str| Wanted { pool: Some(net(pool)), ..Wanted::at_depth(1) };
    // Host bits are dropped; beside what is in use inside it.
    let plan_in = plan(&outer("10.9.0.0/17"), &with("10.9.1.2/16"), None).unwrap();
    assert_eq!(Ipv4Net::aggregate(&plan_in.networks()), [net("10.9.128.0/17")]);
    // No more than a /16 of a large one.
    let large = plan(&outer("10.0.0.0/16"), &with("10.0.0.0/8"), None).unwrap();
    assert_eq!(Ipv4Net::aggregate(&large.networks()), [net("10.1.0.0/16")]);
    let small = plan(&outer(""), &with("10.9.9.0/24"), None).unwrap();
    assert_eq!(Ipv4Net::aggregate(&small.networks()), [net("10.9.9.0/24")]);

    let taken = plan(&outer("10.0.0.0/8 172.16.0.0/12"), &with("10.9.0.0/16"), None);
    let taken = taken.unwrap_err();
    assert_eq!(taken, PlanError::PoolTaken { pool: net("10.9.0.0/16"), by: nets("10.0.0.0/8") });
    for unfit in ["10.0.0.0/25", "8.0.0.0/7", "127.1.0.0/16", "224.0.0.0/8", "169.254.0.0/16"] {
        let error = plan(&outer(""), &with(unfit), None).unwrap_err();
        assert!(matches!(error, PlanError::PoolUnfit { .. }), "{unfit}");
    }
    for depth in [0, MAX_DEPTH + 1] {
        let error = plan(&outer(""), &Wanted::at_depth(depth), None).unwrap_err();
        assert_eq!(error, PlanError::Depth(depth));
    }
}

#[test]
fn the_mtu_is_the_uplink_s_within_bounds() {
    let mtu = |uplink, most| {
        let outer = Outer { uplink_mtu: uplink, ..Outer::default() };
        plan(&outer, &Wanted { mtu: most, ..Wanted::at_depth(1) }, None).unwrap().mtu
    };
    assert_eq!(mtu(Some(1400), None), 1400);
    assert_eq!(mtu(Some(9001), None), 9001);
    assert_eq!(mtu(None, None), 1500);
    assert_eq!(mtu(Some(1500), Some(1380)), 1380);
    assert_eq!(mtu(Some(1400), Some(1500)), 1400, "never wider than the uplink");
    assert_eq!(mtu(Some(576), None), 1280);
    assert_eq!(mtu(Some(100_000), None), 65_535);
}

#[test]
fn resolvers_and_what_the_operator_names_are_kept_clear() {
    let outer = Outer {
        nameservers: vec![IpAddr::from([172, 20, 3, 4]), IpAddr::from([127, 0, 0, 11])],
        ..Outer::default()
    };
    let wanted = Wanted { avoid: nets("172.28.7.7/32 0.0.0.0/0"), ..Wanted::at_depth(1) };
    let plan = plan(&outer, &wanted, None).unwrap();
    assert_eq!(plan.bridge, net("10.208.0.1/20"));
}

#[test]
fn a_kept_plan_stays_while_it_is_right() {
    let first = planned("172.20.0.0/16");
    assert_eq!(first.bridge, net("172.28.0.1/20"));
    let again = |outer: &Outer, wanted: &Wanted| plan(outer, wanted, Some(&first)).unwrap();
    let one = Wanted::at_depth(1);
    // What was in the way is gone: nothing moves. The MTU follows.
    let narrow = Outer { uplink_mtu: Some(1400), ..Outer::default() };
    let kept = again(&narrow, &one);
    assert_eq!((kept.networks(), kept.mtu), (first.networks(), 1400));
    assert!(kept.reasons.iter().any(|why| why.contains("is kept")), "{:?}", kept.reasons);
    // Something of it is routed elsewhere now.
    let moved = again(&outer("172.28.200.0/24"), &one);
    assert_eq!(moved.bridge, net("172.20.0.1/20"));
    assert!(moved.reasons.iter().any(|why| why.contains("given up: 172.28.128.0/17")));
    // Another depth, another pool.
    assert_eq!(again(&outer(""), &Wanted::at_depth(2)).bridge, net("172.21.0.1/20"));
    let pool = Wanted { pool: Some(net("10.9.0.0/16")), ..Wanted::at_depth(1) };
    assert_eq!(again(&outer(""), &pool).bridge, net("10.9.0.1/20"));
    // What the operator said once is not kept when it is no longer said.
    let said = plan(&outer(""), &pool, None).unwrap();
    let unsaid = plan(&outer(""), &one, Some(&said)).unwrap();
    assert_eq!(unsaid.bridge, net("172.20.0.1/20"));
}

#[test]
fn bridges_of_the_last_run_are_no_reason_to_move() {
    let first = planned("");
    let small = first.pools[1];
    let own = Outer {
        bridges: vec![
            first.bridge.trunc(),
            first.pools[0].base,
            Ipv4Net::new(small.base.network(), small.size).unwrap(),
        ],
        ..Outer::default()
    };
    let kept = plan(&own, &Wanted::at_depth(1), Some(&first)).unwrap();
    assert_eq!(kept.networks(), first.networks());
    // The same bridges are in the way when they are not this engine's.
    let strange = plan(&own, &Wanted::at_depth(1), None).unwrap();
    assert_eq!(strange.bridge, net("172.28.0.1/20"));
    let other = Outer { bridges: nets("172.20.0.0/16"), ..Outer::default() };
    let moved = plan(&other, &Wanted::at_depth(1), Some(&first)).unwrap();
    assert_eq!(moved.bridge, net("172.28.0.1/20"));
}

#[test]
fn what_is_handed_on_is_never_merged_into_a_default_route() {
    let outer = Outer { bridges: nets("128.0.0.0/2"), ..outer("172.16.0.0/12 192.0.0.0/2") };
    let first = plan(&outer, &Wanted::at_depth(1), None).unwrap();
    assert!(first.inherited().contains(&net("172.16.0.0/12")), "{:?}", first.inherited());
    let wanted = Wanted { avoid: first.inherited(), ..Wanted::at_depth(2) };
    let second = plan(&Outer::default(), &wanted, None).unwrap();
    assert!(apart(&second, &nets("172.16.0.0/12 192.0.0.0/2")).is_ok(), "{:?}", second.bridge);
}

#[test]
fn a_stored_plan_that_is_no_plan_is_not_kept() {
    let good = planned("");
    let broken: [fn(&mut NetworkPlan); 5] = [
        |plan| plan.pools.clear(),
        |plan| plan.pools[0].size = plan.pools[0].base.prefix_len() - 1,
        |plan| plan.pools[0].base = plan.pools[1].base,
        |plan| plan.bridge = net("172.20.0.0/20"),
        |plan| plan.bridge = net("172.20.128.1/20"),
    ];
    for (case, breaks) in broken.into_iter().enumerate() {
        let mut plan_file = good.clone();
        breaks(&mut plan_file);
        let again = plan(&outer(""), &Wanted::at_depth(1), Some(&plan_file)).unwrap();
        assert_eq!(again.networks(), good.networks(), "case {case}");
        assert!(!again.reasons.iter().any(|why| why.contains("is kept")), "case {case}");
    }
}

/// Where networks are met, the more often the more there are of it: ranges, and
/// whether the range itself is meant or some part of it.
const MET: [(&str, bool); 21] = [
    ("172.16.0.0/12", false),
    ("172.16.0.0/12", false),
    ("172.16.0.0/12", false),
    ("172.16.0.0/12", false),
    ("10.0.0.0/8", false),
    ("10.0.0.0/8", false),
    ("10.0.0.0/8", false),
    ("10.0.0.0/8", false),
    ("192.168.0.0/16", false),
    ("192.168.0.0/16", false),
    ("172.20.0.0/15", false),
    ("100.64.0.0/10", false),
    ("198.18.0.0/15", false),
    ("0.0.0.0/0", false),
    ("10.0.0.0/8", true),
    ("172.16.0.0/12", true),
    ("192.168.0.0/16", true),
    ("0.0.0.0/1", true),
    ("128.0.0.0/2", true),
    ("192.0.0.0/2", true),
    ("172.20.0.0/16", true),
];

/// Networks as they are met: private ones of every size, a VPN's, and any.
fn network() -> impl Strategy<Value = Ipv4Net> {
    (0..MET.len(), any::<u32>(), any::<u8>()).prop_map(|(met, bits, prefix)| {
        let (base, itself) = MET[met];
        let base = net(base);
        if itself {
            return base;
        }
        let prefix = base.prefix_len() + prefix % (33 - base.prefix_len());
        let host = bits & u32::from(base.hostmask());
        Ipv4Net::new(Ipv4Addr::from(u32::from(base.network()) | host), prefix).unwrap().trunc()
    })
}

prop_compose! {
    fn surroundings()(
        mut routes in prop::collection::vec(network(), 0..40),
        bridges in prop::collection::vec(network(), 0..4),
        nameservers in prop::collection::vec(any::<[u8; 4]>().prop_map(IpAddr::from), 0..4),
        uplink_mtu in prop::option::of(0u32..70_000),
    ) -> Outer {
        // As it is read: without default routes.
        routes.retain(|net| net.prefix_len() > 1);
        Outer { routes, bridges, nameservers, search: Vec::new(), uplink_mtu }
    }
}

prop_compose! {
    fn wanted()(
        depth in 1..=MAX_DEPTH,
        pool in prop::option::weighted(0.25, network()),
        avoid in prop::collection::vec(network(), 0..6),
        mtu in prop::option::of(0u32..70_000),
    ) -> Wanted {
        Wanted { depth, pool, avoid, mtu }
    }
}

/// All that a plan must keep clear of, read by other means than the planner's.
fn in_use(outer: &Outer, wanted: &Wanted) -> Vec<Ipv4Net> {
    let resolvers = outer.nameservers.iter().filter_map(|address| match address {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_unspecified() => Some(Ipv4Net::from(*v4)),
        _ => None,
    });
    let avoid = wanted.avoid.iter().copied().filter(|net| net.prefix_len() > 1);
    outer.routes.iter().copied().chain(avoid).chain(resolvers).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_ever_overlaps(
        outer in surroundings(),
        wanted in wanted(),
        // What was planned in another place, with other wishes.
        before in prop::option::of((surroundings(), wanted())),
    ) {
        let kept = before.and_then(|(outer, wanted)| plan(&outer, &wanted, None).ok());
        let in_use = in_use(&outer, &wanted);
        match plan(&outer, &wanted, kept.as_ref()) {
            Ok(planned) => {
                apart(&planned, &in_use).map_err(TestCaseError::fail)?;
                // A bridge may be met only where it is one of this plan's own.
                for bridge in outer.bridges.iter().filter(|net| net.prefix_len() > 1) {
                    let own = kept.is_some() && planned.made(bridge);
                    prop_assert!(own || apart(&planned, &[*bridge]).is_ok(), "{bridge}");
                }
                if let Some(pool) = wanted.pool {
                    for own in planned.networks() {
                        prop_assert!(pool.contains(&own), "{own} outside {pool}");
                    }
                }
                prop_assert!((1280..=65_535).contains(&planned.mtu));
                if let Some(uplink) = outer.uplink_mtu.filter(|mtu| *mtu >= 1280) {
                    prop_assert!(planned.mtu <= uplink);
                }
                prop_assert!(planned.well_formed());
                // What was planned is kept, whatever it was planned from.
                let again = plan(&outer, &wanted, Some(&planned)).unwrap();
                prop_assert_eq!(again.networks(), planned.networks());
            }
            Err(PlanError::PoolTaken { pool, by }) => {
                prop_assert!(!by.is_empty());
                let whole = in_use.iter().chain(&outer.bridges).any(|net| net.contains(&pool));
                let blocks = pool.subnets(24.max(pool.prefix_len())).unwrap();
                for block in blocks.filter(|_| !whole) {
                    let blocked = in_use.iter().chain(&outer.bridges).any(|net| overlap(net, &block));
                    prop_assert!(blocked, "{block} is free");
                }
            }
            Err(PlanError::PoolUnfit { pool, .. }) => {
                let usual = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
                let private = usual.iter().any(|range| net(range).contains(&pool));
                prop_assert!(!private || pool.prefix_len() > 24, "{pool} is a good pool");
            }
            Err(PlanError::NoRoom { depth, .. }) => {
                for range in candidates::of_depth(depth).concat() {
                    for block in range.subnets(22).unwrap() {
                        let blocked =
                            in_use.iter().chain(&outer.bridges).any(|net| overlap(net, &block));
                        prop_assert!(blocked, "{block} is free");
                    }
                }
            }
            Err(PlanError::Depth(depth)) => prop_assert!(false, "depth {depth} is good"),
        }
    }

    /// Engines in one another: each sees the network it is on and what it is
    /// told, and no more.
    #[test]
    fn engines_in_one_another_never_overlap(
        outermost in surroundings(),
        levels in 1..=MAX_DEPTH,
        told in any::<bool>(),
        on in any::<prop::sample::Index>(),
    ) {
        let mut seen = outermost.clone();
        let mut avoid = Vec::new();
        let mut plans: Vec<NetworkPlan> = Vec::new();
        for depth in 1..=levels {
            let wanted = Wanted { avoid: avoid.clone(), ..Wanted::at_depth(depth) };
            let Ok(planned) = plan(&seen, &wanted, None) else { return Ok(()) };
            for above in &plans {
                apart(&planned, &above.networks()).map_err(TestCaseError::fail)?;
            }
            if told {
                let outside = in_use(&outermost, &Wanted::at_depth(1));
                apart(&planned, &outside).map_err(TestCaseError::fail)?;
                avoid = planned.inherited();
            }
            // The next engine is in a container on one of this one's networks.
            let pool = planned.pools[on.index(planned.pools.len())];
            let routes = vec![Ipv4Net::new(pool.base.network(), pool.size).unwrap()];
            let resolver = IpAddr::V4(planned.bridge.addr());
            seen = Outer {
                routes,
                nameservers: vec![resolver],
                uplink_mtu: Some(planned.mtu),
                ..Outer::default()
            };
            plans.push(planned);
        }
        // The deepest is no wider than the way out.
        let narrowest = outermost.uplink_mtu.unwrap_or(1500).max(1280);
        prop_assert!(plans.iter().all(|plan| plan.mtu <= narrowest));
    }
}

//! The planner and the forwarder in network namespaces of the kernel: routes
//! that clash, of every table, and packets that really go both ways. Makes
//! namespaces and takes them away again; needs root and iproute2. The test runs
//! itself again inside a namespace to see from there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers")]

#[path = "netns/inside.rs"]
mod inside;
#[path = "netns/namespaces.rs"]
mod namespaces;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use inside::{Seen, Task, transfer};
use ipnet::Ipv4Net;
use namespaces::Namespaces;
use wolfpack_dockerd::outer::Outer;
use wolfpack_dockerd::plan::{NetworkPlan, Wanted, plan};

/// Bytes that are moved each way.
const TEN_MEGABYTES: usize = 10 << 20;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn clashes(plan: &NetworkPlan, taken: &[Ipv4Net]) -> Vec<String> {
    let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    plan.networks()
        .iter()
        .flat_map(|own| {
            taken.iter().filter(move |net| overlap(own, net)).map(move |net| (own, net))
        })
        .map(|(own, net)| format!("{own} overlaps {net}"))
        .collect()
}

/// An outer machine with 172.19/16, 172.20/16 and a corporate 10/8; a wolf on
/// it with a VPN of its own; a sandbox on the wolf. MTU 1400 outside.
#[test]
fn a_plan_keeps_clear_of_real_routes_and_packets_go_both_ways() {
    if inside::asked() {
        inside::run();
        return;
    }
    let Some(spaces) = Namespaces::make(&["outer", "wolf", "box"]) else { return };
    // The machine: the wolf's uplink, and networks it leads to.
    spaces.link("outer", "to-wolf", "wolf", "eth0", Some(1400));
    spaces.address("outer", "to-wolf", "172.19.0.1/16");
    spaces.address("wolf", "eth0", "172.19.0.2/16");
    spaces.ip("wolf", "route add default via 172.19.0.1");
    // A second network of the machine, and the corporate one behind it, that the
    // wolf has routes to.
    spaces.address("outer", "lo", "172.20.0.1/16");
    spaces.address("outer", "lo", "10.1.2.3/32");
    spaces.ip("wolf", "route add 172.20.0.0/16 via 172.19.0.1");
    spaces.ip("wolf", "route add 10.0.0.0/8 via 172.19.0.1");
    // Tailscale: an address of its own, the rest in a table that a rule leads to.
    spaces.link("wolf", "tailscale0", "outer", "peer0", Some(1280));
    spaces.address("wolf", "tailscale0", "100.101.102.103/32");
    spaces.ip("wolf", "route add 100.64.0.0/10 dev tailscale0 table 52");
    spaces.ip("wolf", "rule add from all lookup 52 pref 5270");

    let outside = ["172.19.0.0/16", "172.20.0.0/16", "10.0.0.0/8", "100.64.0.0/10"].map(net);
    let Seen::Outer(outer) = spaces.inside("wolf", &Task::Read) else { panic!("not an Outer") };
    for seen in outside {
        assert!(outer.routes.contains(&seen), "{seen} is not seen: {:?}", outer.routes);
    }
    assert_eq!(outer.uplink_mtu, Some(1400));

    let first = plan(&outer, &Wanted::at_depth(1), None).unwrap();
    assert_eq!(clashes(&first, &outside), Vec::<String>::new());
    assert_eq!(first.mtu, 1400);

    // What was planned is really used: a bridge network with a container on it.
    let network = first.pools[1].base;
    let size = first.pools[1].size;
    let at = |host: u32| {
        format!("{}/{size}", std::net::Ipv4Addr::from(u32::from(network.network()) + host))
    };
    let (gateway, sandbox) = (at(1), at(2));
    spaces.link("wolf", "docker-veth", "box", "eth0", Some(first.mtu));
    spaces.ip("wolf", "link add br-0123456789ab type bridge");
    spaces.ip("wolf", &format!("link set br-0123456789ab mtu {} up", first.mtu));
    spaces.ip("wolf", "link set docker-veth master br-0123456789ab");
    spaces.address("wolf", "br-0123456789ab", &gateway);
    spaces.address("box", "eth0", &sandbox);
    let gateway_ip = gateway.split('/').next().unwrap();
    let sandbox_ip = sandbox.split('/').next().unwrap();
    spaces.ip("box", &format!("route add default via {gateway_ip}"));
    spaces.forward("wolf");
    // The machine knows the way back, as it would by the wolf's NAT.
    spaces.ip("outer", &format!("route add {network} via 172.19.0.2"));

    // Everything outside is reached from the deepest place, and it from there.
    for target in ["172.19.0.1", "172.20.0.1", "10.1.2.3"] {
        transfer(&spaces, ("outer", target), "box", TEN_MEGABYTES);
    }
    transfer(&spaces, ("box", sandbox_ip), "outer", TEN_MEGABYTES);

    // The wolf again: its own bridge is no reason to move, another's is.
    let Seen::Outer(again) = spaces.inside("wolf", &Task::Read) else { panic!("not an Outer") };
    assert_eq!(again.bridges, [net(&sandbox).trunc()]);
    assert!(!again.routes.iter().any(|route| net(&sandbox).contains(route)), "{again:?}");
    let kept = plan(&again, &Wanted::at_depth(1), Some(&first)).unwrap();
    assert_eq!(kept.networks(), first.networks());

    // The sandbox's own engine: sees one small network, is told of the rest.
    let Seen::Outer(inner) = spaces.inside("box", &Task::Read) else { panic!("not an Outer") };
    assert_eq!(inner.uplink_mtu, Some(1400));
    let wanted = Wanted { avoid: first.inherited(), ..Wanted::at_depth(2) };
    let second = plan(&inner, &wanted, None).unwrap();
    assert_eq!(clashes(&second, &outside), Vec::<String>::new());
    assert_eq!(clashes(&second, &first.networks()), Vec::<String>::new());
    assert_eq!(second.mtu, 1400);

    // Later a VPN takes what the wolf planned: it is seen, and the wolf moves.
    spaces.ip("wolf", &format!("route add {} dev tailscale0 table 52", first.networks()[2]));
    let Seen::Outer(later) = spaces.inside("wolf", &Task::Read) else { panic!("not an Outer") };
    let moved = plan(&later, &Wanted::at_depth(1), Some(&first)).unwrap();
    assert_eq!(clashes(&moved, &[first.networks()[2]]), Vec::<String>::new());
    assert!(moved.reasons.iter().any(|why| why.contains("given up")), "{:?}", moved.reasons);
}

/// A resolver in the machine's namespace knows a name that no public one does;
/// nothing public is reachable.
#[test]
fn names_of_the_machine_are_known_in_the_deepest_place() {
    if inside::asked() {
        inside::run();
        return;
    }
    let Some(spaces) = Namespaces::make(&["outer", "wolf", "box"]) else { return };
    spaces.link("outer", "to-wolf", "wolf", "eth0", None);
    spaces.address("outer", "to-wolf", "172.19.0.1/16");
    spaces.address("wolf", "eth0", "172.19.0.2/16");
    // No default route: 8.8.8.8 and 1.1.1.1 do not exist.
    spaces.link("wolf", "docker0", "box", "eth0", None);
    spaces.address("wolf", "docker0", "172.28.0.1/20");
    spaces.address("box", "eth0", "172.28.0.2/20");

    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 172.19.0.1\n").unwrap();
    let _resolver =
        spaces.background("outer", &Task::Resolver { on: "172.19.0.1:53".parse().unwrap() });
    let bridge: SocketAddr = "172.28.0.1:53".parse().unwrap();
    let _forwarder =
        spaces.background("wolf", &Task::Forward { on: bridge, resolv_conf: resolv_conf.clone() });

    let ask = |server: SocketAddr, name: &str| match spaces
        .inside("box", &Task::Lookup { server, name: name.to_owned() })
    {
        Seen::Said(said) => said,
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(bridge, inside::SPLIT).unwrap(), [IpAddr::from([10, 9, 8, 7])]);
    assert_eq!(ask(bridge, "wolfpack.internal").unwrap(), [IpAddr::from([172, 28, 0, 1])]);
    assert!(ask(bridge, "nobody.example").unwrap().is_empty());
    // What they would have without it: public resolvers are out of reach.
    assert!(ask("8.8.8.8:53".parse().unwrap(), inside::SPLIT).is_err());
    assert!(Path::new(&resolv_conf).exists());
    let Seen::Outer(outer) = spaces.inside("wolf", &Task::Read) else { panic!("not an Outer") };
    assert_eq!(outer.uplink_mtu, None, "there is no way out");
    let _: Outer = outer;
}

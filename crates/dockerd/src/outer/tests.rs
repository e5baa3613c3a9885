//! Reading a made tree.

#![cfg(target_endian = "little")]

use super::*;

/// A wolf in a container: an uplink, a VPN in a table of its own, bridges of the
/// engine's last run, and somebody's bridge with another name.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    let leaf = |address: &str, rest: &str| format!("     |-- {address}\n        {rest}\n");
    let mut fib = String::from("Id 52:\n");
    fib += &leaf("100.64.0.0", "/10 link UNICAST");
    fib += &leaf("172.20.0.0", "/20 universe UNICAST");
    fib += "Main:\n  +-- 0.0.0.0/0 2 0 2\n";
    fib += &leaf("0.0.0.0", "/0 universe UNICAST");
    fib += &leaf("128.0.0.0", "/1 universe UNICAST");
    fib += &leaf("172.19.0.0", "/16 link UNICAST");
    fib += &leaf("172.28.0.0", "/20 link UNICAST");
    fib += &leaf("172.28.16.0", "/20 link UNICAST");
    fib += &leaf("192.168.7.0", "/24 link UNICAST");
    fib += "Local:\n";
    fib += &leaf("127.0.0.0", "/8 host LOCAL");
    fib += &leaf("172.19.0.2", "/32 host LOCAL");
    fib += &leaf("172.28.0.1", "/32 host LOCAL");
    fib += &leaf("172.28.15.255", "/32 link BROADCAST");
    file("proc/net/fib_trie", &fib);
    let main = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010013AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000080\t00000000\t0001\t0\t0\t50\t00000080\t0\t0\t0
eth0\t000013AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
docker0\t00001CAC\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0
br-0123456789ab\t00101CAC\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0
br-lan\t0007A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
    file("proc/net/route", main);
    for bridge in ["docker0", "br-0123456789ab", "br-lan"] {
        fs::create_dir_all(dir.path().join(format!("sys/class/net/{bridge}/bridge"))).unwrap();
    }
    file("sys/class/net/eth0/mtu", "1500\n");
    file("sys/class/net/tun0/mtu", "1380\n");
    file("etc/resolv.conf", "search corp.example\nnameserver 127.0.0.11\n");
    dir
}

#[tokio::test]
async fn all_that_is_routed_is_seen_and_its_own_bridges_are_apart() {
    let tree = tree();
    let outer = Outer::read(tree.path()).await.unwrap();
    let words = |nets: &[Ipv4Net]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let routes = [
        "100.64.0.0/10",
        "172.19.0.0/16",
        "172.19.0.1/32",
        "172.19.0.2/32",
        "172.20.0.0/20",
        "192.168.7.0/24",
    ];
    assert_eq!(words(&outer.routes), routes);
    assert_eq!(words(&outer.bridges), ["172.28.0.0/20", "172.28.16.0/20"]);
    assert_eq!(outer.search, ["corp.example"]);
    assert_eq!(outer.nameservers, [IpAddr::from([127, 0, 0, 11])]);
    assert_eq!(outer.uplink_mtu, Some(1380), "the VPN over the default route counts");
}

#[tokio::test]
async fn another_way_to_a_bridge_s_network_is_not_hidden_by_the_bridge() {
    let tree = tree();
    let route = tree.path().join("proc/net/route");
    let mut text = fs::read_to_string(&route).unwrap();
    text += "eth0\t00001CAC\t010013AC\t0003\t0\t0\t100\t00F0FFFF\t0\t0\t0\n";
    fs::write(&route, text).unwrap();
    let outer = Outer::read(tree.path()).await.unwrap();
    assert!(outer.routes.contains(&"172.28.0.0/20".parse().unwrap()), "{:?}", outer.routes);
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_no_resolv_conf_is_none() {
    let tree = tree();
    fs::remove_file(tree.path().join("etc/resolv.conf")).unwrap();
    assert!(Outer::read(tree.path()).await.unwrap().nameservers.is_empty());
    fs::remove_file(tree.path().join("proc/net/fib_trie")).unwrap();
    let error = Outer::read(tree.path()).await.unwrap_err();
    assert!(error.to_string().contains("/proc/net/fib_trie"), "{error}");
    let real = Outer::read(Path::new("/")).await;
    assert!(real.is_ok(), "{real:?}");
}

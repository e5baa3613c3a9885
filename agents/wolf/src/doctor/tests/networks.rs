//! Rules, pools, packets and names.

use super::*;

const DOCKER_RULES: &str = "-P FORWARD ACCEPT\n-N DOCKER\n-A FORWARD -j DOCKER-USER";

#[tokio::test]
async fn iptables_of_two_kinds() {
    let id = "network.iptables";
    let says = |listing: &str| format!("cat <<'END'\n{listing}\nEND");
    let tables = "proc/net/ip_tables_names";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    let nft = |listing: &str| Tree::new().program("iptables-nft", &says(listing));
    assert_eq!(nft(DOCKER_RULES).outcome(id).await, Outcome::Pass);
    assert_eq!(nft("-P FORWARD ACCEPT").outcome(id).await, Outcome::Warn);
    let broken = Tree::new().program("iptables-nft", "echo 'Permission denied' >&2; exit 4");
    let check = broken.check(id).await;
    assert!(check.outcome == Outcome::Fail && check.message.contains("Permission denied"));

    let both = |old: &str| {
        nft(DOCKER_RULES).program("iptables-legacy", &says(old)).file(tables, "filter\nnat\n")
    };
    assert_eq!(both(DOCKER_RULES).outcome(id).await, Outcome::Fail);
    assert_eq!(both("-P FORWARD DROP").outcome(id).await, Outcome::Fail);
    assert_eq!(both("-P FORWARD ACCEPT\n-A INPUT -j ACCEPT").outcome(id).await, Outcome::Warn);
    assert_eq!(both("-P FORWARD ACCEPT").outcome(id).await, Outcome::Pass);
    // Without tables of the older kind its program is not even asked.
    let unasked = nft(DOCKER_RULES).program("iptables-legacy", "touch \"$0.asked\"; exit 1");
    assert_eq!(unasked.outcome(id).await, Outcome::Pass);
    assert!(!unasked.dir.path().join("usr/sbin/iptables-legacy.asked").exists());
    // Only a plain name, of the older kind.
    let plain = Tree::new()
        .program(
            "iptables",
            &format!(
                "[ \"$1\" = --version ] && echo 'iptables v1.8.9 (legacy)' && exit\n{}",
                says(DOCKER_RULES)
            ),
        )
        .file(tables, "filter\n");
    let check = plain.check(id).await;
    assert!(check.outcome == Outcome::Pass && check.message.contains("legacy"), "{check:?}");
}

#[tokio::test]
async fn pools_and_packets() {
    let planned = plan(&Outer::default(), &Wanted::at_depth(1), None).unwrap();
    let init = InitStatus { plan: Some(planned), ..running() };
    let routed = |route: &str, mtu| Outer {
        routes: vec![route.parse().unwrap()],
        uplink_mtu: mtu,
        ..Outer::default()
    };
    let with = |outer| Tree::new().outer(outer).init(init.clone());
    assert_eq!(Tree::new().outcome("network.pools").await, Outcome::Skip);
    assert_eq!(with(routed("10.0.0.0/8", None)).outcome("network.pools").await, Outcome::Pass);
    let check = with(routed("172.20.77.0/24", None)).check("network.pools").await;
    assert!(check.outcome == Outcome::Fail && check.message.contains("172.20.77.0/24"));
    // A machine's own engine: its bridges beside its routes.
    let bridges =
        Outer { bridges: vec!["10.1.0.0/16".parse().unwrap()], ..routed("10.0.0.0/8", None) };
    assert_eq!(Tree::new().outer(bridges).outcome("network.pools").await, Outcome::Fail);

    assert_eq!(Tree::new().outcome("network.mtu").await, Outcome::Skip);
    assert_eq!(with(routed("10.0.0.0/8", Some(1500))).outcome("network.mtu").await, Outcome::Pass);
    assert_eq!(with(routed("10.0.0.0/8", Some(1400))).outcome("network.mtu").await, Outcome::Fail);
}

/// A resolver that answers every question as it is told: a code, an address.
async fn resolver(code: u8, address: Option<[u8; 4]>) -> std::net::SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = buffer[..length].to_vec();
            answer[2] |= 0x80;
            answer[3] = code;
            if let Some(address) = address {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
                answer.extend(address);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    at
}

#[tokio::test]
async fn names_at_each_level() {
    let id = "dns.wolf";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Fail, "no resolver is named");
    let asks = |server: std::net::SocketAddr, gateway: &str| {
        let nameservers = vec![server.ip()];
        let mut tree = Tree::new().outer(Outer { nameservers, ..Outer::default() });
        tree.look.place.dns_port = server.port();
        tree.look.place.gateway = gateway.to_owned();
        tree
    };
    let knows = resolver(0, Some([10, 1, 1, 1])).await;
    let ignorant = resolver(3, None).await;
    let gateway = "https://wolfpack.corp.example:8443";
    assert_eq!(asks(knows, gateway).outcome(id).await, Outcome::Pass);
    let check = asks(ignorant, gateway).check(id).await;
    assert!(check.outcome == Outcome::Fail && check.message.contains("wolfpack.corp.example"));
    // An address needs no resolver to know it.
    assert_eq!(asks(ignorant, "https://10.0.0.1:8443").outcome(id).await, Outcome::Pass);
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(asks(gone, gateway).outcome(id).await, Outcome::Fail);
    let mut some = asks(knows, gateway);
    some.look.outer.as_mut().unwrap().nameservers.push([127, 0, 0, 77].into());
    assert_eq!(some.outcome(id).await, Outcome::Warn);

    let id = "dns.bridge";
    assert_eq!(Tree::new().outcome(id).await, Outcome::Skip);
    assert_eq!(Tree::new().init(running()).outcome(id).await, Outcome::Fail);
    let on = |dns| Tree::new().init(InitStatus { dns: vec![dns], ..running() });
    assert_eq!(on(knows).outcome(id).await, Outcome::Pass);
    assert_eq!(on(ignorant).outcome(id).await, Outcome::Fail);
    assert_eq!(on(gone).outcome(id).await, Outcome::Fail);
}

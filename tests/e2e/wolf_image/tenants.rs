//! Two tenants with an engine each on one wolf.

use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::{Client, timed};

use super::{ImageFleet, WolfContainer, make_inner_image, nested, root, sh};

/// Answers on port 7777 for four minutes.
const LISTEN: &str = "perl -MIO::Socket::INET -e 'alarm 240; my $l = IO::Socket::INET->new(LocalPort => 7777, \
     Listen => 5, ReuseAddr => 1) or die; while (my $c = $l->accept) { print $c qq(tenant a\\n); close $c }'";

/// A user of another project.
async fn other_tenant(owner: &Client) -> Client {
    let uuid = || uuid::Uuid::new_v4().to_string();
    let request =
        registry::CreateProjectRequest { request_id: uuid(), display_name: "other".to_owned() };
    let made = owner.identity().create_project(timed(request, 10)).await.unwrap().into_inner();
    let project = made.project.unwrap().name;
    let request = registry::CreateApiKeyRequest {
        project,
        role: registry::Role::Developer as i32,
        ..Default::default()
    };
    let key = owner.identity().create_api_key(timed(request, 10)).await.unwrap().into_inner().key;
    owner.with_key(Some(&key))
}

/// What answers there. That a connection opens says nothing: some networks
/// take connections to any address.
fn knock(address: &str) -> String {
    format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/7777 && cat <&3' 2>/dev/null; echo .")
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_sees_the_others_containers_networks_or_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = ImageFleet::start(folder.path()).await;
    let first = fleet.fleet.client().await;
    let second = other_tenant(&first).await;
    let a = first.run(nested()).await.unwrap().name;
    let b = second.run(nested()).await.unwrap().name;
    assert!(second.get(&a).await.is_err() && first.get(&b).await.is_err());

    make_inner_image(&first, &a).await;
    sh(&first, &a, "docker network create secret-net && docker volume create secret-vol").await;
    sh(&first, &a, &format!("docker run -d --name secret-box --network secret-net inner {LISTEN}"))
        .await;
    sh(&first, &a, &format!("setsid {LISTEN} >/dev/null 2>&1 </dev/null & sleep 0.5")).await;
    let all = "docker ps -a; docker images; docker network ls; docker volume ls";
    let own = sh(&first, &a, all).await;
    for thing in ["secret-box", "inner", "secret-net", "secret-vol"] {
        assert!(own.contains(thing), "the control: {own}");
    }
    let others = sh(&second, &b, all).await;
    for thing in ["secret", "inner"] {
        assert!(!others.contains(thing), "{others}");
    }

    // Addresses that the first reaches, the second does not; and the other way.
    let box_address = sh(
        &first,
        &a,
        "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' secret-box",
    )
    .await;
    let a_address = address(&first, &a).await;
    let b_address = address(&second, &b).await;
    let listen = LISTEN.replace("tenant a", "tenant b");
    sh(&second, &b, &format!("setsid {listen} >/dev/null 2>&1 </dev/null & sleep 0.5")).await;
    for (there, whose, (own, own_name), (other, other_name)) in [
        (box_address.trim(), "tenant a", (&first, &a), (&second, &b)),
        (a_address.as_str(), "tenant a", (&first, &a), (&second, &b)),
        (b_address.as_str(), "tenant b", (&second, &b), (&first, &a)),
    ] {
        let own = sh(own, own_name, &knock(there)).await;
        assert!(own.contains(whose), "the control: {there} {own}");
        let other = sh(other, other_name, &knock(there)).await;
        assert!(!other.contains(whose), "{there} is reached: {other}");
    }

    // The sandboxes share no network below IP either.
    let networks = fleet
        .wolf
        .sh("docker network ls -q | xargs docker network inspect -f '{{.Name}} {{range .Containers}}{{.IPv4Address}} {{end}}'")
        .await;
    let of = |address: &str| -> Vec<&str> {
        let there = format!(" {address}/");
        networks.lines().filter(|line| line.contains(&there)).collect()
    };
    let (of_a, of_b) = (of(&a_address), of(&b_address));
    assert_eq!((of_a.len(), of_b.len()), (1, 1), "each is on one network: {networks}");
    assert_ne!(of_a, of_b, "both are on one network: {networks}");

    a_taken_address_leads_nowhere(&fleet.wolf, (&second, &b), (&first, &a), &a_address).await;
    volumes_are_not_shared((&first, &a), (&second, &b)).await;
    no_raw_packets_without_an_engine(&fleet.wolf, &first).await;

    first.delete(&a).await.unwrap();
    second.delete(&b).await.unwrap();
    fleet.fleet.stop().await;
}

/// Of a sandbox, on the wolf.
async fn address(client: &Client, sandbox: &str) -> String {
    let all = sh(client, sandbox, "hostname -i").await;
    all.split_whitespace().next().expect("it has an address").to_owned()
}

/// The second gives itself the first one's address, and calls the wolf from it,
/// which tells everybody on its bridge by ARP: the first's traffic stays its own.
async fn a_taken_address_leads_nowhere(
    wolf: &WolfContainer,
    (thief, thief_name): (&Client, &str),
    (owner, owner_name): (&Client, &str),
    taken: &str,
) {
    let take = format!(
        "ip addr add {taken}/32 dev eth0 && \
         gateway=$(ip route show default | cut -d' ' -f3) && ip neigh flush dev eth0 && \
         timeout 3 perl -MIO::Socket::INET -e 'IO::Socket::INET->new(LocalAddr => q({taken}), \
         PeerAddr => shift, PeerPort => 8443, Timeout => 2)' $gateway; echo taken"
    );
    let said = root(thief, thief_name, &take).await;
    assert!(said.ends_with("taken\n") && !said.contains("not permitted"), "{said}");
    let own = sh(thief, thief_name, &knock(taken)).await;
    assert!(own.contains("tenant b"), "the control: the address is taken: {own}");
    // Whoever asked for it before still finds its owner.
    let from_wolf = wolf.sh(&knock(taken)).await;
    assert!(from_wolf.contains("tenant a"), "the wolf is led astray: {from_wolf}");
    let from_owner = sh(owner, owner_name, &knock(taken)).await;
    assert!(from_owner.contains("tenant a"), "{from_owner}");
    root(thief, thief_name, &format!("ip addr del {taken}/32 dev eth0")).await;
}

/// By its name a volume is each one's own.
async fn volumes_are_not_shared(
    (owner, owner_name): (&Client, &str),
    (other, other_name): (&Client, &str),
) {
    let write = "docker run --rm -v secret-vol:/vol inner bash -c 'echo secret > /vol/file'";
    sh(owner, owner_name, write).await;
    let read = "docker run --rm -v secret-vol:/vol inner bash -c 'cat /vol/* 2>/dev/null; echo .'";
    assert_eq!(sh(owner, owner_name, read).await, "secret\n.\n", "the control");
    make_inner_image(other, other_name).await;
    assert_eq!(sh(other, other_name, read).await, ".\n");
}

/// Those without an engine share a bridge, and cannot forge what goes over it.
async fn no_raw_packets_without_an_engine(wolf: &WolfContainer, client: &Client) {
    // AF_PACKET, SOCK_RAW, every protocol.
    let raw = "perl -MSocket -e 'print socket(S, 17, 3, 0x300) ? qq(raw\n) : qq(refused\n)'";
    assert_eq!(wolf.sh(raw).await, "raw\n", "the control");
    let name = client.run(pb::SandboxSpec::default()).await.unwrap().name;
    assert_eq!(root(client, &name, raw).await, "refused\n");
    client.delete(&name).await.unwrap();
}

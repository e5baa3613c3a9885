//! Two tenants with an engine each on one wolf.

use wolfpack_proto::registry::v1 as registry;
use wolfpack_testkit::client::{Client, timed};

use super::{ImageFleet, make_inner_image, nested, sh};

/// Answers on port 7777 for a minute.
const LISTEN: &str = "perl -MIO::Socket::INET -e 'alarm 60; my $l = IO::Socket::INET->new(LocalPort => 7777, \
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

    // Addresses that the first reaches, the second does not.
    let box_address = sh(
        &first,
        &a,
        "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' secret-box",
    )
    .await;
    let own_address = sh(&first, &a, "hostname -i").await;
    for address in [box_address.trim(), own_address.split_whitespace().next().unwrap()] {
        let own = sh(&first, &a, &knock(address)).await;
        assert!(own.contains("tenant a"), "the control: {address} {own}");
        let other = sh(&second, &b, &knock(address)).await;
        assert!(!other.contains("tenant a"), "{address} is reached: {other}");
    }
    // The sandboxes share no network below IP either.
    let addresses = [own_address, sh(&second, &b, "hostname -i").await];
    let networks: Vec<String> = fleet
        .wolf
        .sh("docker network ls -q | xargs docker network inspect -f '{{.Name}} {{range .Containers}}{{.IPv4Address}} {{end}}'")
        .await
        .lines()
        .map(str::to_owned)
        .collect();
    for line in &networks {
        let both = addresses.iter().all(|address| line.contains(address.trim()));
        assert!(!both, "both are on one network: {line}");
    }

    first.delete(&a).await.unwrap();
    second.delete(&b).await.unwrap();
    fleet.fleet.stop().await;
}

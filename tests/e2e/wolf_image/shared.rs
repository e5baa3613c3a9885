//! SHARED: what a sandbox starts stands beside it, two levels deep; and the
//! network of a wolf with a small MTU and a resolver of its own.

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::container_service_client::ContainerServiceClient;
use wolfpack_proto::types::v1::DockerMode;
use wolfpack_testkit::client::timed;

use super::outside::{BIG, Outside};
use super::probe::says_what_is_documented;
use super::second_wolf::{INSIDE_NAME, SecondWolf};
use super::{WITH_DOCKER, docker, make_inner_image, nested, sh};

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_engine_has_siblings_and_a_small_mtu_carries_all() {
    let folder = tempfile::tempdir().unwrap();
    let second = SecondWolf::start(folder.path()).await;
    let client = second.fleet.client().await;
    let spec = pb::SandboxSpec { docker: DockerMode::Shared as i32, ..Default::default() };
    let sandbox = client.run(spec).await.unwrap();
    let name = sandbox.name.as_str();
    let status = sandbox.status.clone().unwrap();
    assert_eq!(status.wolf, second.name, "only the project's own wolf will do");
    assert!(status.docker.unwrap().isolation.contains("NOT ISOLATED"));
    says_what_is_documented(&second.fleet, &second.wolf, &client, name, "shared").await;

    sh(&client, name, &format!("docker run -d --name beside {WITH_DOCKER} sleep 1000")).await;
    let on_the_wolf = second.wolf.sh("docker ps --format '{{.Names}}'").await;
    assert!(on_the_wolf.lines().any(|line| line == "beside"), "{on_the_wolf}");
    assert!(!docker(&["ps", "--format", "{{.Names}}"]).await.contains("beside"));
    let request = pb::ListContainersRequest { sandbox: name.to_owned() };
    let listed = ContainerServiceClient::with_interceptor(client.channel(), client.bearer())
        .list_containers(timed(request, 20))
        .await
        .unwrap()
        .into_inner()
        .containers;
    assert!(
        listed.iter().any(|container| container.relation() == pb::ContainerRelation::Sibling
            && container.names.iter().any(|name| name.contains("beside"))),
        "{listed:?}"
    );
    client.delete(name).await.unwrap();
    let after = second.wolf.sh("docker ps -a --format '{{.Names}}'").await;
    assert!(!after.contains("beside"), "a sibling is left: {after}");

    // Three levels down on a network whose packets are small, by a name that one resolver knows.
    let name = client.run(nested()).await.unwrap().name;
    make_inner_image(&client, &name).await;
    let found =
        sh(&client, &name, &format!("docker run --rm inner getent hosts {INSIDE_NAME}")).await;
    assert!(found.contains(&second.gateway), "{found}");
    let mtu = sh(&client, &name, "docker run --rm inner cat /sys/class/net/eth0/mtu").await;
    assert!(mtu.trim().parse::<u32>().unwrap() <= 1400, "{mtu}");
    let outside_folder = tempfile::tempdir().unwrap();
    let outside = Outside::start(outside_folder.path(), &second.gateway).await;
    let both = format!(
        "curl -sS -k --max-time 60 {0}/big | wc -c && head -c {BIG} /dev/zero > /big && \
         sha256sum < /big | cut -d' ' -f1 && curl -sS -k --max-time 60 --data-binary @/big {0}/sink",
        outside.url
    );
    let said = sh(
        &client,
        &name,
        &format!("docker run --rm inner bash -c '{}'", both.replace('\'', "'\\''")),
    )
    .await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0].trim(), BIG.to_string());
    assert_eq!(lines[1], lines[2], "what arrived is what was sent");
    client.delete(&name).await.unwrap();
    second.stop().await;
}

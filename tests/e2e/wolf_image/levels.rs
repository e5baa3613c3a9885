//! Three levels deep: Docker works in a sandbox, and the deepest container
//! reaches home and the world.

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::container_service_client::ContainerServiceClient;
use wolfpack_proto::tunnel::v1 as tunnel;
use wolfpack_testkit::client::{Client, timed};

use super::outside::{BIG, Outside};
use super::{ImageFleet, WolfContainer, docker, make_inner_image, nested, not_shown, sh};

#[tokio::test(flavor = "multi_thread")]
async fn the_deepest_container_reaches_home_and_the_world() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = ImageFleet::start(folder.path()).await;
    let client = fleet.fleet.client().await;
    let sandbox = client.run(nested()).await.unwrap();
    let name = sandbox.name.as_str();
    let status = sandbox.status.clone().unwrap();
    assert!(status.docker.unwrap().isolation.contains("own"), "the mode is named plainly");
    let session = session(&client, name).await;

    // The engine is started by its first use, on a driver that is fit.
    assert_eq!(containers(&client, name).await.len(), 0);
    assert_eq!(sh(&client, name, "docker info -f '{{.Driver}}'").await.trim(), "overlay2");
    make_inner_image(&client, name).await;

    home(&client, name).await;
    let outside_folder = tempfile::tempdir().unwrap();
    let outside = Outside::start(outside_folder.path(), &fleet.wolf.gateway().await).await;
    world(&client, name, &outside).await;
    internet(&fleet.wolf, &client, name).await;
    build(&client, name).await;
    compose(&client, name).await;

    sh(&client, name, "docker run -d --name kept inner sleep 1000").await;
    let listed = containers(&client, name).await;
    assert!(
        listed.iter().any(|container| container.names.iter().any(|name| name.contains("kept"))
            && container.relation() == pb::ContainerRelation::Nested
            && container.state == "running"),
        "{listed:?}"
    );
    // Neither the wolf's engine nor this machine's shows what runs inside.
    for engine in [
        fleet.wolf.sh("docker ps -a --format '{{.Names}} {{.Image}}'").await,
        docker(&["ps", "-a"]).await,
    ] {
        assert!(!engine.contains("kept") && !engine.contains("inner"), "{engine}");
    }
    assert_eq!(self::session(&client, name).await, session, "the tunnel stayed up all the while");

    client.delete(name).await.unwrap();
    fleet.fleet.stop().await;
}

/// The API by its name, verified, from both levels.
async fn home(client: &Client, name: &str) {
    let gateway =
        "$(grep -o '\"gateway\": *\"[^\"]*' /run/wolfpack/config.json | grep -o 'https.*')";
    let start = pb::ExecStart {
        argv: vec!["bash".into(), "-c".into(), format!("echo {gateway}")],
        user: "root".to_owned(),
        ..Default::default()
    };
    let found = client.exec_start(name, start, vec![]).await.unwrap();
    let gateway = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    assert!(gateway.starts_with("https://wolfpack.internal:"), "{gateway}");
    let ask = format!("curl -sS --max-time 20 --cacert /ca.crt {gateway}/healthz");
    let from_sandbox = ask.replace("/ca.crt", "/run/wolfpack/ca.crt");
    let answer = sh(client, name, &from_sandbox).await;
    assert!(!answer.is_empty());
    let deepest = sh(
        client,
        name,
        &format!("docker run --rm -v /run/wolfpack/ca.crt:/ca.crt:ro inner {ask}"),
    )
    .await;
    assert_eq!(deepest, answer);
}

/// A server outside of the wolf: git over HTTPS, and 10 MiB both ways.
async fn world(client: &Client, name: &str, outside: &Outside) {
    let url = &outside.url;
    let write = format!("cat > /home/wolf/outside.pem <<'PEM'\n{}\nPEM", outside.certificate);
    sh(client, name, &write).await;
    let clone = |to: &str| {
        format!(
            "GIT_SSL_CAINFO=/home/wolf/outside.pem git clone -q {url}/repo.git {to} && cat {to}/greeting"
        )
    };
    assert_eq!(sh(client, name, &clone("/tmp/here")).await, "hello\n");
    let deep = |line: &str| {
        format!(
            "docker run --rm -v /home/wolf/outside.pem:/home/wolf/outside.pem:ro inner bash -c {}",
            quoted(line)
        )
    };
    assert_eq!(sh(client, name, &deep(&clone("/deep"))).await, "hello\n");

    let fetch = format!("curl -sS --max-time 60 --cacert /home/wolf/outside.pem {url}/big | wc -c");
    assert_eq!(sh(client, name, &deep(&fetch)).await.trim(), BIG.to_string());
    let send = format!(
        "head -c {BIG} /dev/zero > /big; sha256sum < /big | cut -d' ' -f1; \
         curl -sS --max-time 60 --cacert /home/wolf/outside.pem --data-binary @/big {url}/sink"
    );
    let sums = sh(client, name, &deep(&send)).await;
    let (sent, received) = sums.trim().split_once('\n').unwrap();
    assert_eq!(sent, received, "what arrived is what was sent");
}

/// Where the wolf itself has an answer from the internet, the deepest container
/// has it too: from the server of its packages, which a machine without any
/// other way out still reaches.
async fn internet(wolf: &WolfContainer, client: &Client, name: &str) {
    let one_line = r"s#^deb \(\[[^]]*\] \)\?\([^ ]*[^ /]\)/\? \([^ ]*\) .*#\2/dists/\3/Release#p";
    let file = wolf.sh(&format!("sed -n '{one_line}' /etc/apt/sources.list | head -n 1")).await;
    let paragraph = r"s#^URIs: *\([^ ]*[^ /]\)/\?$#\1/dists/stable/Release#p";
    let more = format!("sed -n '{paragraph}' /etc/apt/sources.list.d/*.sources || true");
    let more = wolf.sh(&more).await;
    let file = format!("{file}{more}").lines().next().map(str::to_owned).unwrap();
    let from_wolf = format!(
        "timeout 30 /usr/lib/apt/apt-helper download-file {file} /tmp/release >/dev/null 2>&1 \
         && cat /tmp/release; rm -f /tmp/release"
    );
    let line = format!("curl -sS -L --max-time 30 {file} 2>&1 | head -c 2000");
    let from_deepest = format!("docker run --rm inner bash -c {}", quoted(&line));
    // Such servers are at times slow for one and not for the other.
    let mut seen = None;
    for _ in 0..4 {
        if wolf.sh(&from_wolf).await.contains("Codename:") {
            let answer = sh(client, name, &from_deepest).await;
            if answer.contains("Codename:") {
                return;
            }
            seen = Some(answer);
        }
    }
    assert_eq!(seen, None, "the wolf reaches {file}, and the deepest container does not");
    not_shown("the internet from the deepest level: the wolf itself has no answer from it");
}

async fn build(client: &Client, name: &str) {
    let line = "mkdir -p /tmp/b && cd /tmp/b && printf 'FROM inner\\nRUN echo built > /made\\nCMD cat /made\\n' \
                > Dockerfile && docker build -q -t made . && docker run --rm made";
    assert!(sh(client, name, line).await.ends_with("built\n"));
}

/// A project with networks of its own, whose services meet by name.
async fn compose(client: &Client, name: &str) {
    let file = "version: '3'
services:
  server:
    image: inner
    command: ['perl', '-MIO::Socket::INET', '-e', '$$l = IO::Socket::INET->new(LocalPort => 7000, Listen => 5) or die; while ($$c = $$l->accept) { print $$c \"served\\n\"; close $$c }']
    networks: [back]
  client:
    image: inner
    command: ['sleep', '1000']
    networks: [front, back]
networks:
  front:
  back:
";
    let line = format!(
        "mkdir -p /tmp/c && cd /tmp/c && cat > docker-compose.yml <<'YML'\n{file}YML\n\
         docker-compose up -d 2>&1 && for i in $(seq 30); do docker-compose exec -T client \
         bash -c 'exec 3<>/dev/tcp/server/7000 && cat <&3' && break; sleep 0.3; done; docker-compose down 2>&1"
    );
    let said = sh(client, name, &line).await;
    assert!(said.contains("served"), "{said}");
}

async fn containers(client: &Client, sandbox: &str) -> Vec<pb::Container> {
    let request = pb::ListContainersRequest { sandbox: sandbox.to_owned() };
    ContainerServiceClient::with_interceptor(client.channel(), client.bearer())
        .list_containers(timed(request, 20))
        .await
        .unwrap()
        .into_inner()
        .containers
}

/// The session of the sandbox's tunnel.
async fn session(client: &Client, sandbox: &str) -> String {
    use tunnel::tunnel_service_client::TunnelServiceClient;
    TunnelServiceClient::with_interceptor(client.channel(), client.bearer())
        .list_tunnels(timed(tunnel::ListTunnelsRequest::default(), 10))
        .await
        .unwrap()
        .into_inner()
        .tunnels
        .into_iter()
        .find(|tunnel| tunnel.endpoint == sandbox)
        .map(|tunnel| tunnel.session_id)
        .expect("the sandbox has a tunnel")
}

/// One word for a shell.
fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', "'\\''"))
}

//! What a user of a NESTED sandbox meets. One wolf for all of it: its start is
//! most of the time.

use std::time::Instant;

use wolfpack_proto::agent::v1::ListContainersRequest;
use wolfpack_proto::agent::v1::container_service_client::ContainerServiceClient;
use wolfpack_proto::sandbox::v1::{Container, ContainerRelation};
use wolfpack_rpc::{RpcChannel, from_status};
use wolfpack_types::{Fault, Reason};

use super::machine::engine;
use super::wolf::{PATIENCE, Sandbox, Wolf, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_an_engine_of_its_own() {
    if !engine() {
        return;
    }
    let wolf = Wolf::start();
    let sandbox = wolf.sandbox("one", None, true);
    starts_at_first_use(&sandbox).await;
    runs_containers(&sandbox);
    keeps_to_the_sandboxes_cgroup(&sandbox);
    is_listed(&sandbox).await;
    survives_its_programs_deaths(&sandbox);
    lets_nothing_out(&sandbox);
    let took = sandbox.stop();
    eprintln!("the sandbox with a running container stopped after {took:?}");
    assert!(took < PATIENCE, "the engine did not have to kill it: {took:?}");

    without_a_volume(&wolf.sandbox("bare", None, false));
    without_an_engine(&wolf.sandbox("absent", None, true));
    with_a_bound(&wolf.sandbox("bound", Some(96 << 20), true));
}

async fn list(sandbox: &Sandbox<'_>, name: &str) -> Result<Vec<Container>, Fault> {
    let socket = sandbox.socket();
    let channel =
        RpcChannel::over("sandbox-agent", move || tokio::net::UnixStream::connect(socket.clone()));
    let request = ListContainersRequest { sandbox: name.to_owned() };
    let answer = ContainerServiceClient::new(channel).list_containers(request).await;
    answer.map(|answer| answer.into_inner().containers).map_err(|status| from_status(&status))
}

async fn starts_at_first_use(sandbox: &Sandbox<'_>) {
    assert!(list(sandbox, "sandboxes/sandbox-1").await.unwrap().is_empty());
    // Looking whether somebody listens is no use.
    let look =
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(\"/var/run/docker.sock\") or die'";
    sandbox.ok(look);
    assert_eq!(sandbox.count("dockerd"), 0);
    let began = Instant::now();
    sandbox.ok("for i in $(seq 20); do docker ps --quiet & pids=\"$pids $!\"; done; for p in $pids; do wait $p || exit 1; done");
    eprintln!("20 first clients were served after {:?}", began.elapsed());
    assert_eq!(sandbox.count("dockerd"), 1);
    assert_eq!(sandbox.ok("docker info --format '{{.Driver}}'"), "overlay2");
}

fn runs_containers(sandbox: &Sandbox<'_>) {
    sandbox.make_tiny();
    assert_eq!(sandbox.ok("echo through | docker run --rm -i tiny cat"), "through");
    // The end of stdin reaches the container, and all of its answer comes back.
    sandbox.ok("head -c 3000000 /dev/urandom > /tmp/r; test \"$(docker run --rm -i tiny sha256sum < /tmp/r)\" = \"$(sha256sum < /tmp/r)\"");
    assert!(!sandbox.sh("wolf", "docker run --rm tiny sh -c 'exit 7'").status.success());
    let build = "mkdir -p /tmp/b && printf 'FROM tiny\\nRUN echo built > /x\\n' > /tmp/b/Dockerfile && \
                 docker build -q -t built /tmp/b && docker run --rm built cat /x";
    assert!(sandbox.ok(build).ends_with("built"));
    let name = "getent hosts wolfpack.internal";
    assert!(sandbox.ok(&format!("docker run --rm tiny {name}")).starts_with("10.231.64.1"));
    let other = format!(
        "docker network create inner >/dev/null && docker run --rm --network inner tiny {name}"
    );
    assert!(sandbox.ok(&other).starts_with("10.231.64.1"));
    let subnets = sandbox
        .ok("docker network inspect bridge inner --format '{{(index .IPAM.Config 0).Subnet}}'");
    assert!(!subnets.contains("172.21.") && !subnets.contains("10.231."), "{subnets}");
}

fn keeps_to_the_sandboxes_cgroup(sandbox: &Sandbox<'_>) {
    sandbox.ok("docker run --detach --name stays tiny sleep 1000");
    let groups = "for p in 1 $(pgrep --exact --full 'sleep 1000'); do grep -E ':(memory|pids|):' /proc/$p/cgroup | tr '\\n' ' '; echo; done";
    let groups = sandbox.ok(groups);
    let lines: Vec<&str> = groups.lines().collect();
    assert_eq!(lines.len(), 2, "{groups}");
    assert!(lines[1].starts_with(lines[0].trim_end()) || lines[0].contains("0::"), "{groups}");
}

async fn is_listed(sandbox: &Sandbox<'_>) {
    let listed = list(sandbox, "sandboxes/sandbox-1").await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((listed[0].names[0].as_str(), listed[0].image.as_str()), ("stays", "tiny"));
    assert_eq!(
        (listed[0].state.as_str(), listed[0].relation()),
        ("running", ContainerRelation::Nested)
    );
    let other = list(sandbox, "sandboxes/sandbox-2").await.unwrap_err();
    assert_eq!(other.reason, Reason::SandboxNotFound);
}

fn survives_its_programs_deaths(sandbox: &Sandbox<'_>) {
    let running = "docker ps --quiet --filter name=stays --filter status=running";
    let before = sandbox.ok(running);
    assert!(!before.is_empty());
    for victim in ["pkill -KILL -x dockerd", "pkill -KILL -f '[e]xe engine --order'"] {
        assert!(sandbox.sh("root", victim).status.success(), "{victim}");
        until("its end is noticed", || {
            let log = sandbox.log();
            log.matches("the sandbox's engine has gone").count()
                > usize::from(victim.contains("order"))
        });
        // One that goes twice in a short time is not started at once again.
        until("it is started anew", || sandbox.sh("wolf", "docker ps").status.success());
        assert_eq!(sandbox.ok(running), before, "{victim}: containers live on");
        assert_eq!(sandbox.count("dockerd"), 1);
    }
}

fn lets_nothing_out(sandbox: &Sandbox<'_>) {
    let probe = "/run/wolfpack/bin/wolfpack-sandbox-agent probe --json";
    let report = sandbox.sh("root", probe).stdout;
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    for row in report["checks"].as_array().unwrap() {
        // Those two are the wolf's firewall's, and here is none.
        if !matches!(row["check"].as_str(), Some("wolf_ports" | "metadata")) {
            assert_ne!(row["verdict"], "allowed", "{row}");
        }
    }
}

fn without_a_volume(sandbox: &Sandbox<'_>) {
    let said = sandbox.refused("docker ps");
    assert!(said.contains("/var/lib/docker is not a volume"), "{said}");
    let again = sandbox.refused("docker ps");
    assert!(again.contains("is not a volume"), "{again}");
    assert_eq!(sandbox.count("dockerd"), 0);
}

fn without_an_engine(sandbox: &Sandbox<'_>) {
    assert!(sandbox.sh("root", "mv $(command -v dockerd) /root/").status.success());
    let said = sandbox.refused("docker ps");
    assert!(said.contains("DOCKER_ABSENT"), "{said}");
    assert!(sandbox.sh("root", "mv /root/dockerd /usr/sbin/").status.success());
    until("it is tried again", || sandbox.sh("wolf", "docker ps").status.success());
}

fn with_a_bound(sandbox: &Sandbox<'_>) {
    sandbox.make_tiny();
    sandbox.ok("docker run --detach --restart always --name writes tiny sh -c 'dd if=/dev/zero of=/big bs=1M count=200 oflag=append conv=notrunc; sleep 1000'");
    until("it is full", || sandbox.log().contains("the engine's data is too large"));
    until("the reason is told", || {
        let output = sandbox.sh("wolf", "docker run --rm tiny sh -c :");
        String::from_utf8_lossy(&output.stderr).contains("docker system prune")
    });
    assert!(!sandbox.ok("docker images --quiet tiny").is_empty(), "what reads passes");
    sandbox.refused("docker start writes");
    sandbox.ok("docker rm --force writes");
    until("there is room again", || {
        sandbox.sh("wolf", "docker run --rm tiny sh -c :").status.success()
    });
}

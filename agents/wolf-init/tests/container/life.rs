//! A wolf's life: what it starts without being privileged, what each child's
//! end does to the other, its end and its next start.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use wolfpack_dockerd::status::Outcome;

use crate::image::{INNER, image};
use crate::wolf::{STAND_IN, Wolf, docker};

/// Ends at once when it is asked to.
const BOX: &str = "trap 'exit 0' TERM; while :; do sleep 0.2; done";

#[tokio::test]
async fn an_engine_runs_without_privileges_and_its_users_are_nobody() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::running(image).await;
    let seen = "{{.HostConfig.Privileged}} {{.Mounts}}";
    let inspected = docker(&["inspect", "-f", seen, &wolf.name]).await;
    assert!(inspected.starts_with("false"), "{inspected}");
    assert!(!inspected.contains("docker.sock"), "{inspected}");

    let status = wolf.status().await;
    let facts = status.engine_facts.clone().unwrap();
    assert!(facts.storage_is_overlay() && facts.remapped_root && facts.live_restore, "{facts:?}");
    let step = |name: &str| status.steps.iter().find(|step| step.name == name).unwrap();
    for name in ["isolate", "unmask", "sys", "cgroup", "forwarding", "storage", "network"] {
        assert_eq!(step(name).outcome, Outcome::Done, "{name}");
    }
    // What is planned never holds the address that the outer engine gave.
    let plan = status.plan.clone().unwrap();
    let own = docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", &wolf.name]).await;
    let own: Ipv4Addr = own.trim().parse().unwrap();
    assert!(plan.networks().iter().all(|network| !network.contains(&own)), "{own} in {plan:?}");

    wolf.load().await;
    let said = wolf.inner(&["run", "--rm", INNER, "cat", "/proc/self/uid_map"]).await;
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    let bridge = wolf.inner(&["network", "inspect", "bridge", "-f", "{{json .IPAM.Config}}"]).await;
    assert!(bridge.contains(&plan.bridge.trunc().to_string()), "{bridge}");

    // Names, from a network of its own.
    wolf.inner(&["network", "create", "apart"]).await;
    let asked = wolf.inner(&[
        "run",
        "--rm",
        "--network",
        "apart",
        INNER,
        "getent",
        "hosts",
        "wolfpack.internal",
    ]);
    let bridge_address = plan.bridge.addr().to_string();
    assert!(asked.await.starts_with(&bridge_address), "wolfpack.internal is the bridge");
    let subnet = wolf
        .inner(&["network", "inspect", "apart", "-f", "{{(index .IPAM.Config 0).Subnet}}"])
        .await;
    let subnet: ipnet::Ipv4Net = subnet.trim().parse().unwrap();
    assert!(plan.pools.iter().any(|pool| pool.base.contains(&subnet)), "{subnet} in {plan:?}");

    let policy = wolf.exec(&["iptables", "-S", "FORWARD"]).await;
    assert!(policy.starts_with("-P FORWARD ACCEPT"), "{policy}");
}

#[tokio::test]
async fn either_child_is_killed_and_the_other_does_not_notice() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::running(image).await;
    wolf.load().await;
    wolf.inner(&["run", "-d", "--name", "box", INNER, "sh", "-c", BOX]).await;
    let before = wolf.status().await;
    let started = wolf.inner(&["inspect", "-f", "{{.State.Pid}}", "box"]).await;

    wolf.sh(&format!("kill -9 {}", before.engine.pid.unwrap())).await;
    let after =
        wolf.until("dockerd again", |status| status.engine.restarts > 0 && status.healthy()).await;
    assert_eq!(after.agent.pid, before.agent.pid, "the agent goes on");
    assert_ne!(after.engine.pid, before.engine.pid);
    assert_eq!(after.engine.trouble.as_deref(), Some("ended with signal 9"));
    let now = wolf.inner(&["inspect", "-f", "{{.State.Pid}}", "box"]).await;
    assert_eq!(now, started, "its containers go on");
    wolf.inner(&["exec", "box", "true"]).await;
    wolf.inner(&["run", "--rm", INNER, "true"]).await;
    let policy = wolf.exec(&["iptables", "-S", "FORWARD"]).await;
    assert!(policy.starts_with("-P FORWARD ACCEPT"), "{policy}");

    wolf.sh(&format!("kill -9 {}", after.agent.pid.unwrap())).await;
    let last =
        wolf.until("the agent again", |status| status.agent.restarts > 0 && status.healthy()).await;
    assert_eq!(last.engine.pid, after.engine.pid, "dockerd goes on");
    assert_ne!(last.agent.pid, after.agent.pid);

    // What loses its parent is nobody's, and does not stay.
    wolf.sh("for i in 1 2 3 4 5; do (sh -c 'sleep 0.1 & exit 0' &); done").await;
    let began = Instant::now();
    while wolf.sh("ps -eo stat,args | grep -E '^Z|[s]leep 0.1$' || true").await.contains("sleep") {
        assert!(began.elapsed() < Duration::from_secs(60), "orphans stay");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_stop_is_in_order_and_the_next_start_finds_everything() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::running(image).await;
    wolf.load().await;
    wolf.inner(&["run", "-d", "--name", "box", INNER, "sh", "-c", BOX]).await;
    let before = wolf.status().await;

    docker(&["stop", "-t", "60", &wolf.name]).await;
    assert_eq!(wolf.ended().await, 0, "{}", wolf.logs().await);

    docker(&["start", &wolf.name]).await;
    let after = wolf.healthy().await;
    assert_eq!(after.plan.map(|plan| plan.pools), before.plan.map(|plan| plan.pools));
    // Its sandbox was asked to end, and did.
    let state =
        wolf.inner(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box"]).await;
    assert_eq!(state.trim(), "exited 0");
    wolf.inner(&["start", "box"]).await;
    wolf.inner(&["exec", "box", "true"]).await;

    // Killed, nothing is in order; the next start is good all the same.
    docker(&["kill", &wolf.name]).await;
    docker(&["start", &wolf.name]).await;
    wolf.healthy().await;
    let state = wolf.inner(&["inspect", "-f", "{{.State.Running}}", "box"]).await;
    assert_eq!(state.trim(), "false");
    wolf.inner(&["run", "--rm", INNER, "true"]).await;
}

#[tokio::test]
async fn a_sandbox_that_does_not_end_does_not_hold_the_stop() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::running(image).await;
    wolf.load().await;
    let deaf = "trap '' TERM; while :; do sleep 1; done";
    wolf.inner(&["run", "-d", INNER, "sh", "-c", deaf]).await;
    docker(&["stop", "-t", "100", &wolf.name]).await;
    // 137 would be the outer engine's own patience.
    let code = wolf.ended().await;
    assert!(code == 0 || code == 1, "{code}: {}", wolf.logs().await);
}

#[tokio::test]
async fn names_that_only_the_resolver_around_knows_are_known_inside() {
    let Some(image) = image().await else { return };
    let wolf = Wolf::new(image);
    let network = wolf.name.clone();
    docker(&["network", "create", &network]).await;
    let peer = Wolf::new(image);
    let held = ["run", "-d", "--network", &network, "--entrypoint", "sleep", "--name", &peer.name];
    docker(&[&held[..], &[image, "1000"]].concat()).await;
    wolf.run(&[&STAND_IN[..], &["--network", &network]].concat()).await;
    let status = wolf.healthy().await;
    // The outer engine's rules for names are in this network namespace.
    let why = status.iptables.map(|choice| choice.reason).unwrap_or_default();
    let name = format!("{}.{network}", peer.name);
    wolf.load().await;
    wolf.inner(&["network", "create", "apart"]).await;
    let mut answers = Vec::new();
    for inner in ["bridge", "apart"] {
        let asked = ["run", "--rm", "--network", inner, INNER, "getent", "hosts", &name];
        answers.push(wolf.inner(&asked).await);
    }
    let address = docker(&[
        "inspect",
        "-f",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        &peer.name,
    ])
    .await;
    drop((wolf, peer));
    docker(&["network", "rm", &network]).await;
    assert_eq!(why, "the outer engine's rules are there");
    for answer in answers {
        assert!(answer.starts_with(address.trim()), "{answer} is not {address}");
    }
}

//! The parts of a wolf killed in turn: sandboxes are adopted or end with a
//! reason, and nothing is left behind.

use std::time::Duration;

use wolfpack_dockerd::status::InitStatus;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::Client;
use wolfpack_testkit::process::eventually;

use super::leaks::Goods;
use super::{ImageFleet, WolfContainer, docker, nested, sh};

/// What a sandbox has come to: runs and answers, or ended and says why.
async fn settled(client: &Client, name: &str) -> pb::SandboxState {
    eventually("the sandbox runs or ended with a reason", Duration::from_secs(90), async || {
        let status = client.get(name).await?.status.unwrap_or_default();
        match status.state() {
            pb::SandboxState::Running => {
                let outcome = client.exec(name, &["echo", "here"], vec![]).await?;
                anyhow::ensure!(outcome.stdout == b"here\n");
            }
            pb::SandboxState::Failed => {
                anyhow::ensure!(!status.reason.is_empty() && !status.message.is_empty());
            }
            state => anyhow::bail!("{state:?}"),
        }
        Ok(status.state())
    })
    .await
}

/// Waits until the wolf's init has noticed the end of a child and both run.
async fn restarted(wolf: &WolfContainer, what: &str, again: impl Fn(&InitStatus) -> bool) {
    eventually(&format!("{what} runs again"), Duration::from_secs(120), async || {
        let status = wolf.status().await;
        anyhow::ensure!(again(&status) && status.healthy(), "{status:?}");
        Ok(())
    })
    .await;
}

/// The containers of a sandbox on the wolf, each with when it was started.
async fn container(wolf: &WolfContainer, sandbox: &str) -> String {
    let id = sandbox.trim_start_matches("sandboxes/");
    let line = format!(
        "docker ps -q --no-trunc --filter label=wolfpack.sandbox={id} \
         | xargs -r docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}'"
    );
    wolf.sh(&line).await
}

/// A new sandbox comes up and goes: the wolf works.
async fn works(client: &Client) {
    let name = eventually("a new sandbox runs", Duration::from_secs(90), async || {
        Ok(client.run(nested()).await?.name)
    })
    .await;
    sh(client, &name, "docker info >/dev/null").await;
    client.delete(&name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_wolf_may_be_killed() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = ImageFleet::start(folder.path()).await;
    let client = fleet.fleet.client().await;
    works(&client).await;
    let before = Goods::settled(&fleet.wolf).await;

    // The agent: sandboxes do not notice.
    let plain = client.run(pb::SandboxSpec::default()).await.unwrap().name;
    let with_engine = client.run(nested()).await.unwrap().name;
    sh(&client, &with_engine, "docker info >/dev/null").await;
    let began = fleet.wolf.status().await;
    fleet.wolf.sh("pkill -9 -x wolfpack-wolf-a").await;
    restarted(&fleet.wolf, "the agent", |status| status.agent.restarts > began.agent.restarts)
        .await;
    for name in [&plain, &with_engine] {
        assert_eq!(settled(&client, name).await, pb::SandboxState::Running);
    }
    works(&client).await;

    // The engine: what looks as before was looked at after it came back.
    let containers =
        [container(&fleet.wolf, &plain).await, container(&fleet.wolf, &with_engine).await];
    assert!(containers.iter().all(|container| !container.is_empty()), "{containers:?}");
    fleet.wolf.sh("pkill -9 -x dockerd").await;
    restarted(&fleet.wolf, "dockerd", |status| status.engine.restarts > began.engine.restarts)
        .await;
    for (name, before) in [&plain, &with_engine].into_iter().zip(&containers) {
        match settled(&client, name).await {
            pb::SandboxState::Running => {
                assert_eq!(container(&fleet.wolf, name).await, *before, "adopted as it was");
            }
            // With its reason.
            state => assert_eq!(state, pb::SandboxState::Failed),
        }
    }
    works(&client).await;

    // The whole wolf.
    docker(&["stop", "--time", "30", &fleet.wolf.id]).await;
    docker(&["start", &fleet.wolf.id]).await;
    for name in [&plain, &with_engine] {
        settled(&client, name).await;
        client.delete(name).await.unwrap();
    }
    works(&client).await;

    eventually("nothing is left of them", Duration::from_secs(120), async || {
        let after = Goods::count(&fleet.wolf).await;
        anyhow::ensure!(after == before, "before {before:?}, after {after:?}");
        Ok(())
    })
    .await;
    fleet.fleet.stop().await;
}

//! The parts of a wolf killed in turn: sandboxes are adopted or end with a
//! reason, and nothing is left behind.

use std::time::Duration;

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::Client;
use wolfpack_testkit::process::eventually;

use super::leaks::Goods;
use super::{ImageFleet, docker, nested, sh};

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
    let before = Goods::count(&fleet.wolf).await;

    // The agent: sandboxes do not notice.
    let plain = client.run(pb::SandboxSpec::default()).await.unwrap().name;
    let with_engine = client.run(nested()).await.unwrap().name;
    sh(&client, &with_engine, "docker info >/dev/null").await;
    fleet.wolf.sh("pkill -9 -x wolfpack-wolf-a").await;
    for name in [&plain, &with_engine] {
        assert_eq!(settled(&client, name).await, pb::SandboxState::Running);
    }
    works(&client).await;

    // The engine.
    fleet.wolf.sh("pkill -9 -x dockerd").await;
    for name in [&plain, &with_engine] {
        settled(&client, name).await;
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

    eventually("nothing is left of them", Duration::from_secs(60), async || {
        let after = Goods::count(&fleet.wolf).await;
        anyhow::ensure!(after == before, "before {before:?}, after {after:?}");
        Ok(())
    })
    .await;
    fleet.fleet.stop().await;
}

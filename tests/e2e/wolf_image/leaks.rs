//! What fifty sandboxes leave on a wolf: nothing.

use std::time::Duration;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::process::eventually;

use super::{ImageFleet, WolfContainer, nested, sh};

/// What sandboxes take of a wolf, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Goods {
    containers: usize,
    volumes: usize,
    networks: usize,
    links: usize,
    mounts: usize,
    rules: usize,
    folders: usize,
}

impl Goods {
    /// Once two counts agree: the kernel takes a deleted sandbox's links and
    /// mounts away after its deletion is told.
    pub(super) async fn settled(wolf: &WolfContainer) -> Self {
        let mut last = Self::count(wolf).await;
        eventually("two counts agree", Duration::from_secs(60), async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = Self::count(wolf).await;
            let before = std::mem::replace(&mut last, now.clone());
            anyhow::ensure!(before == now, "{before:?}, then {now:?}");
            Ok(now)
        })
        .await
    }

    pub(super) async fn count(wolf: &WolfContainer) -> Self {
        let count = async |line: &str| -> usize {
            wolf.sh(&format!("({line}) | wc -l")).await.trim().parse().unwrap()
        };
        Self {
            containers: count("docker ps -aq").await,
            volumes: count("docker volume ls -q").await,
            networks: count("docker network ls -q").await,
            links: count("ip -o link").await,
            mounts: count("cat /proc/$(pgrep -x -o dockerd)/mounts").await,
            rules: count("iptables-save | grep '^-A'").await,
            folders: count("ls -d /var/lib/wolfpack-wolf/sandboxes/* 2>/dev/null").await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_sandboxes_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = ImageFleet::start(folder.path()).await;
    let client = fleet.fleet.client().await;
    // The first ones make what every later one uses.
    for spec in [pb::SandboxSpec::default(), nested()] {
        let name = client.run(spec).await.unwrap().name;
        client.delete(&name).await.unwrap();
    }
    let before = Goods::settled(&fleet.wolf).await;
    futures::stream::iter(0..50)
        .map(|number| {
            let client = client.clone();
            async move {
                let with_engine = number % 5 == 0;
                let spec = if with_engine { nested() } else { pb::SandboxSpec::default() };
                let name = client.run(spec).await?.name;
                if with_engine {
                    sh(&client, &name, "docker info >/dev/null").await;
                }
                client.delete(&name).await
            }
        })
        .buffer_unordered(4)
        .try_collect::<Vec<()>>()
        .await
        .unwrap();
    eventually("nothing is left of fifty", Duration::from_secs(120), async || {
        let after = Goods::count(&fleet.wolf).await;
        anyhow::ensure!(after == before, "before {before:?}, after {after:?}");
        Ok(())
    })
    .await;
    fleet.fleet.stop().await;
}

//! The sandbox's own tunnel first, the wolf's second: packets of the first are
//! dropped, and the screenshot still comes.

use std::time::{Duration, Instant};

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::client::{Client, timed};
use wolfpack_testkit::fault_relay::Mode;
use wolfpack_testkit::process::eventually;
use wolfpack_testkit::process_fleet::{Options, ProcessFleet};

async fn screenshot(client: &Client, name: &str) -> anyhow::Result<pb::GetScreenshotResponse> {
    let request = pb::GetScreenshotRequest { sandbox: name.to_owned() };
    Ok(client.desktop().get_screenshot(timed(request, 120)).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screenshot_comes_through_the_wolf_when_the_sandbox_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = ProcessFleet::start(folder.path(), Options::default()).await;
    let client = fleet.client().await;
    let sandbox =
        client.run(pb::SandboxSpec { desktop: true, ..Default::default() }).await.unwrap();

    let shot = screenshot(&client, &sandbox.name).await.unwrap();
    assert_eq!(shot.via, pb::TunnelPath::Sandbox as i32);
    assert!(fleet.sandbox_path.bytes() > 0, "the sandbox's tunnel does not go through the relay");

    // Every packet is dropped, nothing is closed: nobody is told.
    fleet.sandbox_path.set(Mode::Blackhole);
    let cut = Instant::now();
    let shot = screenshot(&client, &sandbox.name).await.unwrap();
    assert_eq!(shot.via, pb::TunnelPath::Wolf as i32);
    assert!(shot.image.starts_with(b"\x89PNG"));
    // Long before the deadline of the call is over.
    assert!(cut.elapsed() < Duration::from_secs(45), "{:?}", cut.elapsed());
    let outcome = client.exec(&sandbox.name, &["echo", "through the wolf"], vec![]).await.unwrap();
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.via),
        (b"through the wolf\n".as_slice(), pb::TunnelPath::Wolf as i32)
    );

    let metrics = fleet.manager_metrics().await;
    let counted = metrics.lines().any(|line| {
        line.starts_with("wolfpack_sandbox_reach")
            && line.contains("via=\"wolf\"")
            && !line.ends_with(" 0")
    });
    assert!(counted, "no metric says that the wolf's tunnel was used:\n{metrics}");

    // The network is back: so is the sandbox's own tunnel.
    fleet.sandbox_path.set(Mode::Reset);
    tokio::time::sleep(Duration::from_millis(200)).await;
    fleet.sandbox_path.set(Mode::Pass);
    eventually("the sandbox's own tunnel is used again", Duration::from_secs(90), async || {
        let shot = screenshot(&client, &sandbox.name).await?;
        anyhow::ensure!(shot.via == pb::TunnelPath::Sandbox as i32, "via {}", shot.via);
        Ok(())
    })
    .await;
    client.delete(&sandbox.name).await.unwrap();
    fleet.stop().await;
}

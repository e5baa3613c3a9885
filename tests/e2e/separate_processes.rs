//! Five services and the agents as processes of their own, mTLS between them,
//! on PostgreSQL; processes that die come back.

use std::time::Duration;

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::process::eventually;
use wolfpack_testkit::process_fleet::{Options, ProcessFleet};
use wolfpack_testkit::span_collector::SpanCollector;
use wolfpack_testkit::test_database::postgres_server;

use crate::dev::Trace;
use crate::{dev, main_job};

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_postgresql() {
    let Some(postgres) = postgres_server() else { return };
    let collector = SpanCollector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        postgres: Some(postgres),
        otlp_endpoint: Some(collector.endpoint()),
        sandbox_otlp_endpoint: Some(collector.endpoint_for_containers()),
    };
    let fleet = ProcessFleet::start(folder.path(), options).await;
    let client = fleet.client().await;
    main_job::run(&client).await;
    dev::assert_trace(&collector, &dev::HOPS, Trace::Ended).await;
    // A sandbox that lives: a removed one is killed, and takes spans it has not yet sent along.
    let sandbox = client.run(pb::SandboxSpec::default()).await.unwrap();
    let mut hops = dev::HOPS.to_vec();
    hops.push("sandbox-agent");
    dev::assert_trace(&collector, &hops, Trace::GoesOn).await;
    // Both what a create leads to in the sandbox and what an exec does.
    dev::assert_descends(&collector, "sandbox-agent", "SandboxService/CreateSandbox").await;
    client.exec(&sandbox.name, &["true"], vec![]).await.unwrap();
    dev::assert_descends(&collector, "sandbox-agent", "SandboxIoService/Exec").await;
    client.delete(&sandbox.name).await.unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_live_through_the_death_of_every_other_process() {
    let Some(postgres) = postgres_server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let options = Options { postgres: Some(postgres), ..Options::default() };
    let mut fleet = ProcessFleet::start(folder.path(), options).await;
    let client = fleet.client().await;
    let sandbox = client.run(pb::SandboxSpec::default()).await.unwrap();
    let container = main_job::container_of(&sandbox).await.unwrap().id;

    for name in ["registry", "scheduler", "sandbox-manager", "tunnel-broker", "wolf", "gateway"] {
        fleet.process(name).kill().await;
        if name == "wolf" {
            fleet.start_wolf();
        } else {
            let name = ["registry", "scheduler", "sandbox-manager", "tunnel-broker", "gateway"]
                .into_iter()
                .find(|service| *service == name)
                .unwrap();
            fleet.start_service(name);
        }
        let what = format!("exec after {name} was killed");
        eventually(&what, Duration::from_secs(60), async || {
            let outcome = client.exec(&sandbox.name, &["echo", "alive"], vec![]).await?;
            anyhow::ensure!(outcome.stdout == b"alive\n", "{outcome:?}");
            Ok(())
        })
        .await;
    }
    let kept = main_job::container_of(&sandbox).await.unwrap().id;
    assert_eq!(container, kept, "the container was replaced");

    // And the fleet still takes new work.
    fleet.wait_online().await;
    let another = client.run(pb::SandboxSpec::default()).await.unwrap();
    client.delete(&another.name).await.unwrap();
    client.delete(&sandbox.name).await.unwrap();
    assert!(main_job::container_of(&sandbox).await.is_none());
    fleet.stop().await;
}

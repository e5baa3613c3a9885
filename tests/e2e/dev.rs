//! `wolfpack dev` and the command line, as a person uses them.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_testkit::dev_fleet::DevFleet;
use wolfpack_testkit::process::{binary, eventually};
use wolfpack_testkit::span_collector::{Span, SpanCollector};

use crate::main_job;

/// Runs the command line against a fleet.
async fn wolfpack(fleet: &DevFleet, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("wolfpack"));
    command
        .args(arguments)
        .env("WOLFPACK_SERVER", &fleet.ready().server)
        .env("WOLFPACK_API_KEY", &fleet.ready().api_key)
        .kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(90), command.output())
        .await
        .expect("within 90 s")
        .unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_in_one_process_with_every_hop_in_one_trace() {
    let collector = SpanCollector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = collector.endpoint();
    let fleet =
        DevFleet::start(folder.path(), &[("WOLFPACK_DEV__TELEMETRY__OTLP_ENDPOINT", &endpoint)])
            .await;
    let client = fleet.client().await;
    main_job::run(&client).await;
    fleet.stop().await;
    assert_trace(&collector, &HOPS, Trace::Ended).await;
}

/// The services that the way of a create leads through, up to the wolf.
pub(crate) const HOPS: [&str; 6] =
    ["gateway", "sandbox-manager", "scheduler", "registry", "tunnel-broker", "wolf-agent"];

/// Whether a trace that is asserted has ended: a span is exported when it ends,
/// so in one that goes on (an open connection to a live sandbox) some spans
/// still miss their parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Ended,
    GoesOn,
}

/// One trace holds the whole way of a create: a span of every hop and, once it
/// has ended, one root from which all others descend.
pub(crate) async fn assert_trace(collector: &SpanCollector, hops: &[&str], trace: Trace) {
    eventually("a trace with every hop", Duration::from_secs(20), async || {
        let mut best = (0, String::from("there is no trace of a create"));
        for spans in collector.traces().values() {
            let begins = |span: &Span| {
                span.name.contains("CreateSandbox") && span.service.contains("gateway")
            };
            if !spans.iter().any(begins) {
                continue;
            }
            let counts: Vec<(&str, usize)> = hops
                .iter()
                .map(|hop| (*hop, spans.iter().filter(|span| span.service.contains(hop)).count()))
                .collect();
            let there = counts.iter().filter(|(_, count)| *count > 0).count();
            let roots = spans
                .iter()
                .filter(|span| !spans.iter().any(|other| other.id == span.parent))
                .count();
            if there == hops.len() && (roots == 1 || trace == Trace::GoesOn) {
                return Ok(());
            }
            if there >= best.0 {
                best = (there, format!("{roots} roots, spans by hop: {counts:?}"));
            }
        }
        anyhow::bail!("{}", best.1)
    })
    .await;
}

/// A span of `service` comes of a call to the gateway: its parents lead, through
/// the sandbox-manager, to the gateway's span of `rpc`.
pub(crate) async fn assert_descends(collector: &SpanCollector, service: &str, rpc: &str) {
    let what = format!("a span of {service} that comes of {rpc}");
    eventually(&what, Duration::from_secs(60), async || {
        let traces = collector.traces();
        let mut seen = String::from("it has no span at all");
        for spans in traces.values() {
            for span in spans.iter().filter(|span| span.service.contains(service)) {
                let way = ancestors(spans, span);
                let through = way.iter().any(|span| span.service.contains("sandbox-manager"));
                let from = way
                    .iter()
                    .any(|span| span.service.contains("gateway") && span.name.ends_with(rpc));
                if through && from {
                    return Ok(());
                }
                seen = way.iter().fold(span.name.clone(), |way, span| {
                    format!("{way} < {} of {}", span.name, span.service)
                });
            }
        }
        anyhow::bail!("the last one seen: {seen}")
    })
    .await;
}

/// The parents of a span, the nearest first, as far as they have come.
fn ancestors<'a>(spans: &'a [Span], span: &'a Span) -> Vec<&'a Span> {
    let mut way = Vec::new();
    let mut child = span;
    // No way is longer than all there are, even where ids are a ring.
    while way.len() < spans.len()
        && let Some(parent) = spans.iter().find(|other| other.id == child.parent)
    {
        way.push(parent);
        child = parent;
    }
    way
}

#[test]
fn only_parents_lead_to_the_root() {
    let span = |service: &str, name: &str, id: &str, parent: &str| Span {
        service: service.to_owned(),
        name: name.to_owned(),
        trace: "t".to_owned(),
        id: id.to_owned(),
        parent: parent.to_owned(),
    };
    let spans = [
        span("gateway", "CreateSandbox", "1", ""),
        span("sandbox-manager", "CreateSandbox", "2", "1"),
        span("sandbox-agent", "GetStatus", "3", "2"),
        span("sandbox-agent", "Exec", "4", "lost"),
    ];
    let ids = |at: usize| -> Vec<&str> {
        ancestors(&spans, &spans[at]).iter().map(|span| span.id.as_str()).collect()
    };
    assert_eq!(ids(2), ["2", "1"]);
    assert!(ids(3).is_empty(), "one that is in the trace and hangs from nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_the_main_job_and_state_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut fleet = DevFleet::start(folder.path(), &[]).await;

    let wolves: Value =
        serde_json::from_str(&out(&wolfpack(&fleet, &["wolf", "list", "-o", "json"]).await))
            .unwrap();
    assert!(wolves.to_string().to_lowercase().contains("online"), "{wolves}");
    let verdicts = out(&wolfpack(&fleet, &["explain", "--gpu", "1"]).await);
    assert!(verdicts.contains("GPU_ABSENT"), "{verdicts}");

    let created = wolfpack(
        &fleet,
        &["sandbox", "create", "--name", "cli", "--label", "made-by=cli", "-o", "json"],
    )
    .await;
    let created: Value = serde_json::from_str(&out(&created)).unwrap();
    let name = created["name"].as_str().unwrap().to_owned();
    assert!(out(&wolfpack(&fleet, &["sandbox", "list"]).await).contains("cli"));

    let exec =
        wolfpack(&fleet, &["sandbox", "exec", "cli", "--", "sh", "-c", "echo hi; exit 5"]).await;
    assert_eq!((exec.status.code(), exec.stdout.as_slice()), (Some(5), b"hi\n".as_slice()));
    let none = wolfpack(&fleet, &["sandbox", "get", "nobody"]).await;
    assert!(!none.status.success());
    assert!(String::from_utf8_lossy(&none.stderr).contains("SANDBOX_NOT_FOUND"), "{none:?}");

    fleet.stop_keeping_sandboxes().await;
    let fleet = DevFleet::start(folder.path(), &[]).await;
    let client = fleet.client().await;
    let kept =
        eventually("the sandbox runs after the restart", Duration::from_secs(40), async || {
            let sandbox = client.get(&name).await?;
            let status = sandbox.status.clone().unwrap_or_default();
            anyhow::ensure!(status.state() == pb::SandboxState::Running, "{status:?}");
            Ok(sandbox)
        })
        .await;
    let outcome = eventually("exec after the restart", Duration::from_secs(40), async || {
        client.exec(&name, &["echo", "still here"], vec![]).await
    })
    .await;
    assert_eq!(outcome.stdout, b"still here\n");
    assert!(main_job::container_of(&kept).await.is_some());

    out(&wolfpack(&fleet, &["sandbox", "delete", "cli"]).await);
    client.wait(&name, pb::SandboxState::Deleted).await.unwrap();
    assert!(main_job::container_of(&kept).await.is_none());
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_ends_by_itself_says_why_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = DevFleet::start(folder.path(), &[]).await;
    let client = fleet.client().await;
    let command = ["sh", "-c", "echo last words; sleep 1; exit 42"].map(str::to_owned).to_vec();
    let created = client.create(pb::SandboxSpec { command, ..Default::default() }).await.unwrap();
    let failed = client.wait(&created.name, pb::SandboxState::Failed).await.unwrap();
    let status = failed.status.clone().unwrap();
    assert_eq!((status.reason.as_str(), status.exit_code), ("SANDBOX_EXITED", Some(42)));
    assert!(status.last_logs.contains("last words"), "{status:?}");
    eventually("its container is gone", Duration::from_secs(20), async || {
        anyhow::ensure!(main_job::container_of(&failed).await.is_none());
        Ok(())
    })
    .await;
    client.delete(&created.name).await.unwrap();

    let missing = pb::SandboxSpec { image: "no-such-image:ever".to_owned(), ..Default::default() };
    let created = client.create(missing).await.unwrap();
    let failed = client.wait(&created.name, pb::SandboxState::Failed).await.unwrap();
    let reason = failed.status.unwrap().reason;
    assert!(["IMAGE_NOT_FOUND", "IMAGE_PULL_FAILED"].contains(&reason.as_str()), "{reason}");
    client.delete(&created.name).await.unwrap();

    // Killed behind our back: it is noticed.
    let sandbox = client.run(pb::SandboxSpec::default()).await.unwrap();
    let container = main_job::container_of(&sandbox).await.unwrap().id.unwrap();
    let killed = Command::new("docker").args(["kill", &container]).output().await.unwrap();
    assert!(killed.status.success());
    eventually("a killed container is noticed", Duration::from_secs(45), async || {
        let state = client.get(&sandbox.name).await?.status.unwrap_or_default().state();
        anyhow::ensure!(state == pb::SandboxState::Failed, "{state:?}");
        Ok(())
    })
    .await;
    client.delete(&sandbox.name).await.unwrap();
    fleet.stop().await;
}

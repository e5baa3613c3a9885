//! How long a sandbox takes to be ready for use, beside `docker run -d` of the
//! same image on the same engine, interleaved, first and second by turns.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::process::Command;
use wolfpack_proto::sandbox::v1 as pb;

use crate::quantiles::quantile;
use crate::timed_client::{TimedClient, millis};

const IMAGE: &str = "wolfpack/sandbox-base:latest";

/// Times in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    docker_run: Quantiles,
    create: Quantiles,
    split: Split,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p95: f64,
}

/// Medians of the stages of a create: until the wolf admitted it, until the
/// container runs, until the sandbox's agent answers.
#[derive(Debug, Serialize)]
struct Split {
    placing: f64,
    container: f64,
    attach: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    docker_run: f64,
    create: f64,
    placing: f64,
    container: f64,
    attach: f64,
}

pub(crate) async fn run(pairs: usize) -> anyhow::Result<Report> {
    let client = TimedClient::connect().await?;
    // One of each ahead, so that caches are as warm for the first row as for the last.
    docker_run().await?;
    create(&client).await?;
    let mut rows = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        // By turns: whoever comes second finds what the first one left in caches.
        let (docker, (create, stages)) = if pair % 2 == 0 {
            let docker = docker_run().await?;
            (docker, create(&client).await?)
        } else {
            let created = create(&client).await?;
            (docker_run().await?, created)
        };
        rows.push(Row {
            docker_run: docker,
            create,
            placing: stages[0],
            container: stages[1],
            attach: stages[2],
        });
    }
    let column = |pick: fn(&Row) -> f64| rows.iter().map(pick).collect::<Vec<_>>();
    let quantiles =
        |sample: Vec<f64>| Quantiles { p50: quantile(&sample, 0.5), p95: quantile(&sample, 0.95) };
    Ok(Report {
        docker_run: quantiles(column(|row| row.docker_run)),
        create: quantiles(column(|row| row.create)),
        split: Split {
            placing: quantile(&column(|row| row.placing), 0.5),
            container: quantile(&column(|row| row.container), 0.5),
            attach: quantile(&column(|row| row.attach), 0.5),
        },
        rows,
    })
}

pub(crate) fn summary(report: &Report) -> String {
    format!(
        "docker run -d   p50 {:6.0} ms   p95 {:6.0} ms\ncreate→RUNNING  p50 {:6.0} ms   p95 {:6.0} ms   \
         (over docker run: {:+.0} ms at p50)\n  placing {:.0} ms, container {:.0} ms, attach {:.0} ms",
        report.docker_run.p50,
        report.docker_run.p95,
        report.create.p50,
        report.create.p95,
        report.create.p50 - report.docker_run.p50,
        report.split.placing,
        report.split.container,
        report.split.attach,
    )
}

/// Runs a container until `docker run -d` returns; then removes it, untimed.
async fn docker_run() -> anyhow::Result<f64> {
    let begun = Instant::now();
    let output = Command::new("docker")
        .args(["run", "-d", IMAGE])
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("docker run")?;
    let taken = millis(begun.elapsed());
    if !output.status.success() {
        bail!("docker run ended with {}", output.status);
    }
    let id = String::from_utf8(output.stdout)?;
    let removed =
        Command::new("docker").args(["rm", "-f", id.trim()]).stdout(Stdio::null()).status().await?;
    if !removed.success() {
        bail!("docker rm ended with {removed}");
    }
    Ok(taken)
}

/// Creates a sandbox, waits until it is RUNNING (timed), and until it is deleted (untimed).
async fn create(client: &TimedClient) -> anyhow::Result<(f64, [f64; 3])> {
    let spec = pb::SandboxSpec { image: IMAGE.to_owned(), ..Default::default() };
    let (taken, running) = client.create(spec).await?;
    let stages = stages(&running).context("a stage is missing in the transitions")?;
    client.delete(&running.name).await?;
    Ok((taken, stages))
}

/// Milliseconds from the request to PULLING (placed and admitted), on to
/// STARTING (container started), on to RUNNING (agent attached and ready).
fn stages(sandbox: &pb::Sandbox) -> Option<[f64; 3]> {
    let begun = seconds(sandbox.create_time.as_ref()?);
    let transitions = &sandbox.status.as_ref()?.transitions;
    let at = |state: pb::SandboxState| {
        let step = transitions.iter().find(|step| step.state() == state)?;
        Some(seconds(step.time.as_ref()?))
    };
    let (admitted, started, running) = (
        at(pb::SandboxState::Pulling)?,
        at(pb::SandboxState::Starting)?,
        at(pb::SandboxState::Running)?,
    );
    Some([admitted - begun, started - admitted, running - started].map(|seconds| seconds * 1000.0))
}

#[allow(clippy::cast_precision_loss, reason = "seconds of this century fit")]
fn seconds(time: &prost_types::Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) / 1e9
}

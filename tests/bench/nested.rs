//! What an engine of one's own costs: sandboxes on a wolf that is a container,
//! and Docker inside them, beside this machine's own engine, interleaved.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::process::Command;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::types::v1::DockerMode;

use crate::quantiles::quantile;
use crate::timed_client::{TimedClient, millis};

const IMAGE: &str = "wolfpack/sandbox-docker:latest";
const TINY: &str = "wolfpack-bench/tiny:latest";
/// As little as `true` needs, out of whatever Debian runs it.
const TINY_FILES: &str = "tar -C / -ch bin/true lib64/ld-linux-x86-64.so.2 \
                          lib/x86_64-linux-gnu/libc.so.6";

/// Times in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `docker run -d` of the sandbox's image on this machine's engine.
    host_run_detached: Quantiles,
    /// A sandbox without Docker, until RUNNING.
    create_none: Quantiles,
    /// A sandbox with an engine of its own, until RUNNING; the engine sleeps.
    create_nested: Quantiles,
    /// From the first use of its socket until the engine answered.
    first_engine: Quantiles,
    /// `docker run --rm` of a tiny image on this machine's engine.
    host_run: Quantiles,
    /// The same inside a sandbox, three levels deep.
    nested_run: Quantiles,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p95: f64,
    max: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Row {
    host_run_detached: f64,
    create_none: f64,
    create_nested: f64,
    first_engine: f64,
    host_run: f64,
    nested_run: f64,
}

pub(crate) async fn run(pairs: usize) -> anyhow::Result<Report> {
    let client = TimedClient::connect().await?;
    host(&format!("docker run --rm {IMAGE} {TINY_FILES} | docker import - {TINY}")).await?;
    row(&client).await?;
    let mut rows = Vec::with_capacity(pairs);
    for _ in 0..pairs {
        rows.push(row(&client).await?);
    }
    host(&format!("docker image rm {TINY}")).await?;
    let of = |pick: fn(&Row) -> f64| {
        let sample: Vec<f64> = rows.iter().map(pick).collect();
        Quantiles {
            p50: quantile(&sample, 0.5),
            p95: quantile(&sample, 0.95),
            max: quantile(&sample, 1.0),
        }
    };
    Ok(Report {
        host_run_detached: of(|row| row.host_run_detached),
        create_none: of(|row| row.create_none),
        create_nested: of(|row| row.create_nested),
        first_engine: of(|row| row.first_engine),
        host_run: of(|row| row.host_run),
        nested_run: of(|row| row.nested_run),
        rows,
    })
}

pub(crate) fn summary(report: &Report) -> String {
    let line = |what: &str, times: &Quantiles| {
        format!(
            "{what:44} p50 {:6.0} ms   p95 {:6.0} ms   max {:6.0} ms\n",
            times.p50, times.p95, times.max
        )
    };
    [
        line("docker run -d, this machine's engine", &report.host_run_detached),
        line("create to RUNNING, no docker", &report.create_none),
        line("create to RUNNING, docker nested", &report.create_nested),
        line("nested engine, first use to ready", &report.first_engine),
        line("docker run --rm tiny, this machine's engine", &report.host_run),
        line("docker run --rm tiny, nested", &report.nested_run),
    ]
    .concat()
}

async fn row(client: &TimedClient) -> anyhow::Result<Row> {
    let begun = Instant::now();
    let id = host(&format!("docker run -d {IMAGE}")).await?;
    let host_run_detached = millis(begun.elapsed());
    host(&format!("docker rm -f {}", id.trim())).await?;

    let none = pb::SandboxSpec { image: IMAGE.to_owned(), ..Default::default() };
    let (create_none, sandbox) = client.create(none).await?;
    client.delete(&sandbox.name).await?;

    let nested = pb::SandboxSpec {
        image: IMAGE.to_owned(),
        docker: DockerMode::Nested as i32,
        ..Default::default()
    };
    let (create_nested, sandbox) = client.create(nested).await?;
    // Timed inside, so that the way there does not count.
    let timed = |line: &str| {
        format!("a=$(date +%s%N); {line} >/dev/null; echo $((($(date +%s%N)-a)/1000))")
    };
    let micros = async |line: &str| -> anyhow::Result<f64> {
        let said = client.shell(&sandbox.name, &timed(line)).await?;
        Ok(said.trim().parse::<f64>().with_context(|| said.clone())? / 1000.0)
    };
    let first_engine = micros("docker version").await?;
    client.shell(&sandbox.name, &format!("{TINY_FILES} | docker import - {TINY}")).await?;
    let nested_run = micros(&format!("docker run --rm {TINY} /bin/true")).await?;
    client.delete(&sandbox.name).await?;

    let begun = Instant::now();
    host(&format!("docker run --rm {TINY} /bin/true")).await?;
    let host_run = millis(begun.elapsed());
    Ok(Row { host_run_detached, create_none, create_nested, first_engine, host_run, nested_run })
}

async fn host(line: &str) -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-c", line]).stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "{line}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

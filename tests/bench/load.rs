//! An image into a wolf, through gateway, manager and tunnel, beside `docker
//! save | docker load` straight into the wolf's engine, interleaved: once as
//! LoadImage of an archive that is there, once as `wolfpack image push` of an
//! image of this machine's engine, which must be saved first, for its digest is
//! announced before its bytes. And what the processes on the way hold in memory
//! meanwhile.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::quantiles::quantile;
use crate::timed_client::millis;

const IMAGE: &str = "wolfpack-bench/load:latest";
/// Layers of random bytes, which nothing on the way can make smaller.
const LAYERS: usize = 5;
const LAYER_MIB: usize = 100;
/// How often memory is read.
const SAMPLED: Duration = Duration::from_millis(50);

/// What the ready file of `wolfpack dev` says of its wolf.
#[derive(Debug, Deserialize)]
struct Ready {
    wolf: String,
    wolf_container: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    image_mib: usize,
    /// Medians, in milliseconds.
    direct_ms: f64,
    /// As above, of the archive.
    archive_ms: f64,
    /// As above, of the image.
    push_ms: f64,
    /// Speed over that of the direct way, of the medians.
    ratio_archive: f64,
    /// The least and the largest of the pairs.
    ratio_archive_range: [f64; 2],
    /// As above, of the image.
    ratio_push: f64,
    /// As above.
    ratio_push_range: [f64; 2],
    /// The most that a push added to the resident memory, in MiB.
    grown_mib: Grown,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Grown {
    wolf_agent: f64,
    services: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    direct_ms: f64,
    archive_ms: f64,
    push_ms: f64,
    grown_mib: Grown,
}

struct Bench {
    wolfpack: PathBuf,
    /// What `docker save` wrote.
    archive: PathBuf,
    ready: Ready,
    /// The wolf's engine as this machine sees it.
    engine: String,
    agent: u32,
    services: u32,
}

pub(crate) async fn run(pairs: usize) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let bench = Bench::find(folder.path().join("image.tar")).await?;
    make_image().await?;
    sh(&format!("docker save --output {} {IMAGE}", bench.archive.display())).await?;
    let measured = bench.rows(pairs).await;
    sh(&format!("docker image rm {IMAGE}")).await?;
    let rows = measured?;
    let of = |pick: fn(&Row) -> f64| rows.iter().map(pick).collect::<Vec<_>>();
    let range = |ratios: Vec<f64>| [quantile(&ratios, 0.0), quantile(&ratios, 1.0)];
    let direct_ms = quantile(&of(|row| row.direct_ms), 0.5);
    let archive_ms = quantile(&of(|row| row.archive_ms), 0.5);
    let push_ms = quantile(&of(|row| row.push_ms), 0.5);
    Ok(Report {
        image_mib: LAYERS * LAYER_MIB,
        direct_ms,
        archive_ms,
        push_ms,
        ratio_archive: direct_ms / archive_ms,
        ratio_archive_range: range(of(|row| row.direct_ms / row.archive_ms)),
        ratio_push: direct_ms / push_ms,
        ratio_push_range: range(of(|row| row.direct_ms / row.push_ms)),
        grown_mib: Grown {
            wolf_agent: quantile(&of(|row| row.grown_mib.wolf_agent), 1.0),
            services: quantile(&of(|row| row.grown_mib.services), 1.0),
        },
        rows,
    })
}

pub(crate) fn summary(report: &Report) -> String {
    let line = |what: &str, ms: f64, ratio: f64, range: [f64; 2]| {
        format!(
            "{what:32} p50 {ms:6.0} ms   ratio {ratio:.2} ({:.2} to {:.2})\n",
            range[0], range[1]
        )
    };
    [
        format!("{} MiB, {} rows\n", report.image_mib, report.rows.len()),
        line("docker save | docker load", report.direct_ms, 1.0, [1.0; 2]),
        line(
            "LoadImage of an archive",
            report.archive_ms,
            report.ratio_archive,
            report.ratio_archive_range,
        ),
        line("wolfpack image push", report.push_ms, report.ratio_push, report.ratio_push_range),
        format!(
            "memory grown at most: wolf agent {:.0} MiB, services {:.0} MiB",
            report.grown_mib.wolf_agent, report.grown_mib.services
        ),
    ]
    .concat()
}

impl Bench {
    async fn find(archive: PathBuf) -> anyhow::Result<Self> {
        let file = std::env::var("WOLFPACK_READY").context("WOLFPACK_READY is not set")?;
        let ready: Ready = serde_json::from_slice(&tokio::fs::read(&file).await?)?;
        let container = ready.wolf_container.clone().context("the wolf is no container")?;
        let pid = sh(&format!("docker inspect --format {{{{.State.Pid}}}} {container}")).await?;
        let agent = sh(&format!("docker top {container} -eo pid,comm")).await?;
        let agent = agent
            .lines()
            .filter_map(|line| line.split_once(char::is_whitespace))
            // The kernel keeps 15 bytes of a name.
            .find(|(_, name)| name.trim() == "wolfpack-wolf-a")
            .context("the wolf runs no agent")?
            .0;
        let wolfpack = std::env::current_exe()?.with_file_name("wolfpack");
        let services = std::env::var("WOLFPACK_PID").context("WOLFPACK_PID is not set")?;
        Ok(Self {
            wolfpack,
            archive,
            engine: format!("unix:///proc/{}/root/run/docker.sock", pid.trim()),
            agent: agent.parse()?,
            services: services.parse()?,
            ready,
        })
    }

    async fn rows(&self, pairs: usize) -> anyhow::Result<Vec<Row>> {
        // One of each ahead, so that caches are as warm for the first row as for the last.
        self.direct().await?;
        self.push(IMAGE.as_ref()).await?;
        let mut rows = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            let direct_ms = self.direct().await?;
            let (archive_ms, one) = self.push(self.archive.as_os_str()).await?;
            let (push_ms, other) = self.push(IMAGE.as_ref()).await?;
            let grown_mib = Grown {
                wolf_agent: one.wolf_agent.max(other.wolf_agent),
                services: one.services.max(other.services),
            };
            rows.push(Row { direct_ms, archive_ms, push_ms, grown_mib });
        }
        Ok(rows)
    }

    async fn direct(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        sh(&format!("docker save {IMAGE} | docker --host {} load --quiet", self.engine)).await?;
        let taken = millis(begun.elapsed());
        sh(&format!("docker --host {} image rm {IMAGE}", self.engine)).await?;
        Ok(taken)
    }

    /// Pushes an image by its name, or an archive.
    async fn push(&self, what: &OsStr) -> anyhow::Result<(f64, Grown)> {
        let before = self.resident().await?;
        let mut most = before;
        let begun = Instant::now();
        let mut push = Command::new(&self.wolfpack)
            .args(["image", "push"])
            .arg(what)
            .args(["--wolf", &self.ready.wolf])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let ended = loop {
            match tokio::time::timeout(SAMPLED, push.wait()).await {
                Ok(ended) => break ended?,
                Err(_) => {
                    let now = self.resident().await?;
                    most.wolf_agent = most.wolf_agent.max(now.wolf_agent);
                    most.services = most.services.max(now.services);
                }
            }
        };
        let taken = millis(begun.elapsed());
        ensure!(ended.success(), "wolfpack image push: {ended}");
        let inside = format!("docker --host {} image rm {IMAGE}", self.engine);
        sh(&inside).await.context("what was pushed is not in the wolf's engine")?;
        let grown = Grown {
            wolf_agent: most.wolf_agent - before.wolf_agent,
            services: most.services - before.services,
        };
        Ok((taken, grown))
    }

    async fn resident(&self) -> anyhow::Result<Grown> {
        Ok(Grown {
            wolf_agent: resident(self.agent).await?,
            services: resident(self.services).await?,
        })
    }
}

/// The resident memory of a process in MiB.
async fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = tokio::fs::read_to_string(format!("/proc/{pid}/status")).await?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

async fn make_image() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut recipe = String::from("FROM scratch\n");
    for layer in 0..LAYERS {
        let file = folder.path().join(layer.to_string());
        sh(&format!("head -c {LAYER_MIB}M /dev/urandom >{}", file.display())).await?;
        recipe.push_str(&format!("COPY {layer} /{layer}\n"));
    }
    tokio::fs::write(folder.path().join("Dockerfile"), recipe).await?;
    sh(&format!("docker build --quiet --tag {IMAGE} {}", folder.path().display())).await?;
    Ok(())
}

/// A line of bash; a failure anywhere in a pipe is one of the line.
async fn sh(line: &str) -> anyhow::Result<String> {
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", line])
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "{line}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! Work of all kinds for a long time: what broker and agent hold must not grow.

mod held;
mod load;
mod slope;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use tokio::process::Child;
use wolfpack_types::SandboxId;

use crate::identity::Mint;
use crate::machine;
use crate::parts::agent::Agent;
use crate::parts::broker::{Broker, Exposed};
use crate::processes::{free, reachable, start_part, start_telling_part};
use held::{Held, Watched};
use load::{Counts, Load};
use slope::Slopes;

/// What the agent serves, under names that users may dial.
const TARGETS: [(&str, &str); 4] =
    [("echo", "tcp:7"), ("http", "tcp:80"), ("source", "tcp:19"), ("sink", "tcp:9")];
/// Between two samples.
const SAMPLED: Duration = Duration::from_secs(1);
/// The most time that warms up: pools and the allocator's own.
const WARM_UP: Duration = Duration::from_secs(300);

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Value,
    seconds: f64,
    /// Samples before this are not part of the slopes.
    warm_up_s: f64,
    /// By process: least squares of the samples after the warm-up.
    slopes: BTreeMap<&'static str, Slopes>,
    /// Pieces of work, by kind: how many were done, and how many failed.
    done: BTreeMap<&'static str, Counts>,
    configuration: Value,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, Serialize)]
struct Sample {
    seconds: f64,
    broker: Held,
    agent: Held,
}

/// Runs the load for so long, and writes the report to `out` every minute.
///
/// # Errors
/// When a process cannot be started, or ends before the run does.
pub(crate) async fn run(time: Duration, out: &Path) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let rig = Rig::start(folder.path()).await?;
    let load = Load::start(&rig.fronts, &rig.broker_part, &rig.sandbox)?;
    let (begun, mut samples) = (Instant::now(), Vec::new());
    let mut tick = tokio::time::interval(SAMPLED);
    while begun.elapsed() < time {
        tick.tick().await;
        let seconds = begun.elapsed().as_secs_f64();
        let (broker, agent) = (rig.broker.held()?, rig.agent.held()?);
        samples.push(Sample { seconds, broker, agent });
        if samples.len() % 60 == 0 {
            rig.report(time, &load, &samples)?.write(out)?;
        }
    }
    let report = rig.report(time, &load, &samples)?;
    load.stop().await;
    for mut process in rig.processes {
        process.kill().await?;
    }
    Ok(report)
}

impl Report {
    fn write(&self, out: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        std::fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
    }
}

pub(crate) fn summary(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut text =
        format!("{:.0} s, slopes an hour after {:.0} s\n", report.seconds, report.warm_up_s);
    for (name, slopes) in &report.slopes {
        let Slopes { rss_kib, fds, tasks } = slopes;
        let _ = writeln!(
            text,
            "{name:8} RSS {rss_kib:+9.1} KiB   files {fds:+7.2}   tasks {tasks:+7.2}"
        );
    }
    for (name, Counts { done, failed }) in &report.done {
        let _ = writeln!(text, "{name:16} {done:9} done {failed:6} failed");
    }
    text
}

/// The processes.
struct Rig {
    broker: Watched,
    agent: Watched,
    broker_part: Broker,
    sandbox: SandboxId,
    fronts: load::Fronts,
    processes: Vec<Child>,
}

impl Rig {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let addresses: BTreeMap<String, _> =
            TARGETS.iter().map(|(name, _)| ((*name).to_owned(), free())).collect();
        let targets = start_part("targets", folder, &addresses)?;
        for at in addresses.values() {
            reachable(*at).await?;
        }
        let (mint, sandbox) = (Mint::new()?, SandboxId::new());
        let exposed = |(_, target): &(&str, &str)| Exposed {
            listen: free(),
            endpoint: sandbox.name(),
            target: (*target).to_owned(),
        };
        let broker_part = Broker {
            agents: free(),
            internal: free(),
            metrics: free(),
            tls: None,
            known: mint.known()?,
            exposures: TARGETS.iter().map(exposed).collect(),
            data_threads: 0,
            attaches_per_second: 500,
            stream_window: None,
        };
        let mut broker = start_telling_part("broker", folder, &broker_part)?;
        reachable(broker_part.agents).await?;
        let agent_part = Agent {
            broker: broker_part.agents,
            roots: None,
            endpoint: sandbox.name(),
            token: mint.token(&sandbox)?,
            targets: TARGETS
                .iter()
                .map(|(name, target)| ((*target).to_owned(), addresses[*name]))
                .collect(),
            grpc: None,
            data_thread: false,
        };
        let mut agent = start_telling_part("agent", folder, &agent_part)?;
        let names = TARGETS.iter().map(|(name, _)| *name);
        let fronts = names.zip(broker_part.exposures.iter().map(|one| one.listen)).collect();
        load::attached(&fronts).await.context("the agent does not attach")?;
        Ok(Self {
            broker: Watched::of(&mut broker)?,
            agent: Watched::of(&mut agent)?,
            broker_part,
            sandbox,
            fronts,
            processes: vec![targets, broker, agent],
        })
    }

    fn report(&self, time: Duration, load: &Load, samples: &[Sample]) -> anyhow::Result<Report> {
        let mut configuration = serde_json::to_value(&self.broker_part)?;
        // Keys of this run.
        if let Some(fields) = configuration.as_object_mut() {
            fields.remove("known");
        }
        let warm_up_s = WARM_UP.min(time / 4).as_secs_f64();
        let warm = samples.iter().filter(|sample| sample.seconds >= warm_up_s);
        let of = |pick: fn(&Sample) -> Held| {
            let looks = warm.clone().map(|sample| (sample.seconds, pick(sample)));
            Slopes::of(&looks.collect::<Vec<_>>())
        };
        Ok(Report {
            machine: machine::describe(),
            seconds: samples.last().map_or(0.0, |sample| sample.seconds),
            warm_up_s,
            slopes: [("broker", of(|sample| sample.broker)), ("agent", of(|sample| sample.agent))]
                .into(),
            done: load.counts(),
            configuration,
            samples: samples.to_vec(),
        })
    }
}

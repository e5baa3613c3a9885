//! Many agents that do nothing, at one broker: what each costs it, and how long
//! all of them take to come back when it was killed.

mod attaches;
pub(crate) mod fleet;
mod progress;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use tokio::process::Child;

use crate::certificate::Ca;
use crate::identity::Mint;
use crate::parts::broker::Broker;
use crate::processes::{free, pid, reachable, start_part, start_telling_part};
use crate::{machine, scrape};
use attaches::Attaches;
use fleet::Fleet;
use progress::Look;

/// The default of the broker, which may let as many in at once again.
const ATTACHES_PER_SECOND: u32 = 500;
/// Streams each agent keeps parked at rest, by the broker's default.
const PARKED: usize = 2;
/// How long all agents may take to attach, the first time and again.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the broker is asked what it has, which is work for it, too.
const LOOK: Duration = Duration::from_millis(250);
/// How long the broker rests before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);

/// What to run.
pub(crate) struct Choice {
    pub(crate) agents: usize,
    /// How long the processor's time at rest is taken.
    pub(crate) idle: Duration,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Value,
    agents: usize,
    kib_per_agent_plain: f64,
    kib_per_agent_tls: f64,
    /// Of one core, the larger one of plain and TLS.
    idle_cpu_percent: f64,
    /// From the start of the new broker until the last agent is back, the larger
    /// one of plain and TLS.
    readmit_s: f64,
    /// What the broker is configured to let in.
    attaches_per_second: u32,
    parked_streams_per_agent: usize,
    plain: Measured,
    tls: Measured,
}

#[derive(Debug, Serialize)]
struct Measured {
    broker_kib_before: f64,
    broker_kib_after: f64,
    kib_per_agent: f64,
    idle_seconds: f64,
    idle_cpu_percent: f64,
    readmit_s: f64,
    /// The same, until half of them and nine tenths were back.
    half_back_s: f64,
    most_back_s: f64,
    /// The fastest that the broker let them in meanwhile, by its own count, over a
    /// second or a little more. It lets its rate in, and as many again at once.
    fastest_per_second: f64,
    /// The most agents that attached within any one second of coming back, by their
    /// own clock, which runs behind while they all want a processor.
    most_attaches_in_a_second: usize,
    broker_kib_readmitted: f64,
}

pub(crate) async fn run(choice: Choice) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let plain = measure(&choice, &folder.path().join("plain"), false).await?;
    let tls = measure(&choice, &folder.path().join("tls"), true).await?;
    Ok(Report {
        machine: machine::describe(),
        agents: choice.agents,
        kib_per_agent_plain: plain.kib_per_agent,
        kib_per_agent_tls: tls.kib_per_agent,
        idle_cpu_percent: plain.idle_cpu_percent.max(tls.idle_cpu_percent),
        readmit_s: plain.readmit_s.max(tls.readmit_s),
        attaches_per_second: ATTACHES_PER_SECOND,
        parked_streams_per_agent: PARKED,
        plain,
        tls,
    })
}

pub(crate) fn summary(report: &Report) -> String {
    let line = |name: &str, one: &Measured| {
        format!(
            "{name:6} {:6.1} KiB an agent   idle {:5.2} % of a core   all back after {:5.1} s   \
             at most {:.0} let in a second (cap {})\n",
            one.kib_per_agent,
            one.idle_cpu_percent,
            one.readmit_s,
            one.fastest_per_second,
            report.attaches_per_second,
        )
    };
    let head = format!("{} agents\n", report.agents);
    [head, line("plain", &report.plain), line("TLS", &report.tls)].concat()
}

/// One broker and its agents, each in a process of its own.
async fn measure(choice: &Choice, folder: &Path, tls: bool) -> anyhow::Result<Measured> {
    std::fs::create_dir_all(folder)?;
    let mint = Mint::new()?;
    let files = if tls { Some(Ca::new()?.service(folder, "tunnel-broker")?) } else { None };
    let part = Broker {
        agents: free(),
        internal: free(),
        metrics: free(),
        tls: files.clone(),
        known: mint.known()?,
        exposures: Vec::new(),
        data_threads: 1,
        attaches_per_second: ATTACHES_PER_SECOND,
        stream_window: None,
    };
    let mut broker = started(&part, folder).await?;
    tokio::time::sleep(SETTLE / 2).await;
    let broker_kib_before = machine::resident_kib(pid(&broker)?)?;

    let fleet = Fleet {
        broker: part.agents,
        roots: files.map(|files| files.roots_file),
        mint,
        agents: choice.agents,
        // Below the cap, so that nobody has to wait for a second attempt.
        started_per_second: ATTACHES_PER_SECOND / 2,
    };
    let mut agents = start_telling_part("fleet", folder, &fleet)?;
    let attaches = Attaches::of(&mut agents)?;
    all_there(&part, [&mut broker, &mut agents], choice.agents, PARKED).await?;
    tokio::time::sleep(SETTLE).await;
    let broker_kib_after = machine::resident_kib(pid(&broker)?)?;

    let (begun, used) = (Instant::now(), machine::processor_seconds(pid(&broker)?)?);
    tokio::time::sleep(choice.idle).await;
    let used = machine::processor_seconds(pid(&broker)?)? - used;
    let idle_seconds = begun.elapsed().as_secs_f64();
    let there = scrape::metric(part.metrics, "tunnel_attached").await?;
    anyhow::ensure!(there == Some(choice.agents as f64), "agents were lost at rest: {there:?}");

    broker.kill().await?;
    attaches.forget();
    let restarted = Instant::now();
    let mut broker = started(&part, folder).await?;
    let processes = [&mut broker, &mut agents];
    let looks = all_there(&part, processes, choice.agents, 0).await?;
    let back = |share| progress::until(&looks, share * choice.agents as f64, restarted);
    let [half_back_s, most_back_s, readmit_s] = [0.5, 0.9, 1.0].map(back);
    let fastest_per_second = progress::fastest(&looks);
    // The last of them are told a moment later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let most_attaches_in_a_second = attaches.most_in_a_second();
    all_there(&part, [&mut broker, &mut agents], choice.agents, PARKED).await?;
    tokio::time::sleep(SETTLE).await;
    let broker_kib_readmitted = machine::resident_kib(pid(&broker)?)?;
    agents.kill().await?;
    broker.kill().await?;
    Ok(Measured {
        broker_kib_before,
        broker_kib_after,
        kib_per_agent: (broker_kib_after - broker_kib_before) / choice.agents as f64,
        idle_seconds,
        idle_cpu_percent: 100.0 * used / idle_seconds,
        readmit_s,
        half_back_s,
        most_back_s,
        fastest_per_second,
        most_attaches_in_a_second,
        broker_kib_readmitted,
    })
}

async fn started(part: &Broker, folder: &Path) -> anyhow::Result<Child> {
    let broker = start_part("broker", folder, part)?;
    reachable(part.metrics).await.context("the broker does not start")?;
    Ok(broker)
}

/// Waits until the broker has so many agents, and that each has so many streams
/// parked; gives what was seen meanwhile.
async fn all_there(
    part: &Broker,
    mut processes: [&mut Child; 2],
    count: usize,
    parked: usize,
) -> anyhow::Result<Vec<Look>> {
    let begun = Instant::now();
    let mut looks = Vec::new();
    loop {
        let asked = Instant::now();
        let seen = counts(part).await;
        if let Ok((attached, streams)) = seen {
            looks.push(Look { asked, answered: Instant::now(), attached });
            if attached >= count as f64 && streams >= (count * parked) as f64 {
                return Ok(looks);
            }
        }
        for process in &mut processes {
            anyhow::ensure!(process.try_wait()?.is_none(), "broker or agents have ended");
        }
        anyhow::ensure!(
            begun.elapsed() < PATIENCE,
            "after {PATIENCE:?} {count} agents are not attached, but {seen:?} with so many streams"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Tunnels that are attached, and streams that are parked.
async fn counts(part: &Broker) -> anyhow::Result<(f64, f64)> {
    let names = ["tunnel_attached", "tunnel_parked_streams"];
    let [attached, streams] = scrape::metrics(part.metrics, names).await?;
    Ok((attached.unwrap_or_default(), streams.unwrap_or_default()))
}

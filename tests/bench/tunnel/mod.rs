//! The tunnel beside rathole and `ssh -R`, both ends on this machine: peers take
//! turns within each round, and a ratio is of two rows of one round.

mod awake;
mod clients;
mod far;
mod grpc;
mod measures;
mod peers;
mod report;
mod services;
mod tools;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::machine;
use crate::processes::{free, quiet, reachable, start_part};
use far::Far;
use measures::MEASURES;
use peers::{Addresses, Peer, TARGETS};
use report::{Report, Row, added, medians, ratio};

/// Which peers and measures to run; all by default.
pub(crate) struct Choice {
    pub(crate) rounds: usize,
    pub(crate) peers: Option<Vec<String>>,
    pub(crate) measures: Option<Vec<String>>,
}

impl Choice {
    fn wants_peer(&self, name: &str) -> bool {
        self.peers.as_ref().is_none_or(|some| some.iter().any(|one| one == name))
    }

    fn wants(&self, measure: &str) -> bool {
        self.measures.as_ref().is_none_or(|some| some.iter().any(|one| one == measure))
    }
}

/// Measures, and writes the report to `out` after every round.
///
/// # Errors
/// When the targets cannot be started or the report cannot be written. A peer that
/// cannot be started is named, and a measurement that fails is a row that says so.
pub(crate) async fn run(choice: Choice, out: &Path) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let (targets, mut others) = start_targets(folder.path()).await?;
    let (mut peers, absent) = start_peers(&choice, folder.path(), &targets).await?;
    let configurations: BTreeMap<_, _> = peers
        .iter()
        .map(|peer| (peer.name.to_owned(), elsewhere(peer.configuration.clone(), folder.path())))
        .collect();
    let mut rows = Vec::new();
    let mut report = written(&configurations, &absent, &rows, 0, out)?;
    for round in 0..choice.rounds {
        for measure in MEASURES.into_iter().filter(|measure| choice.wants(measure)) {
            for turn in 0..measures::turns(measure) {
                for peer in peers.iter().filter(|peer| peer.measures.contains(&measure)) {
                    rows.extend(measured((round, turn), measure, peer).await);
                }
            }
        }
        report = written(&configurations, &absent, &rows, round + 1, out)?;
    }
    for process in peers.iter_mut().flat_map(|peer| &mut peer.processes).chain(&mut others) {
        process.kill().await?;
    }
    Ok(report)
}

/// What can be chosen, beside `direct`, which is always there. The gateway brings
/// its own TLS and `wolfpack port-forward` along.
const PEERS: [&str; 6] =
    ["rathole", "ssh", "wolfpack", "wolfpack-tls", "wolfpack-rtt40", services::GATEWAY];

/// The peers that run, and why others do not.
async fn start_peers(
    choice: &Choice,
    folder: &Path,
    targets: &Addresses,
) -> anyhow::Result<(Vec<Peer>, BTreeMap<String, String>)> {
    let (mut peers, mut absent) = (vec![Peer::direct(targets)?], BTreeMap::new());
    for name in PEERS.into_iter().filter(|name| choice.wants_peer(name)) {
        match start_peer(name, folder, targets).await {
            Ok(started) => peers.extend(started),
            Err(error) => {
                eprintln!("{name} cannot be measured: {error:#}");
                absent.insert(name.to_owned(), format!("{error:#}"));
            }
        }
    }
    Ok((peers, absent))
}

async fn start_peer(
    name: &'static str,
    folder: &Path,
    targets: &Addresses,
) -> anyhow::Result<Vec<Peer>> {
    let one = match name {
        "rathole" => {
            let program = std::env::var_os("WOLFPACK_RATHOLE").unwrap_or_else(|| "rathole".into());
            Peer::rathole(Path::new(&program), folder, targets).await
        }
        "ssh" => Peer::ssh(folder, targets).await,
        "wolfpack-rtt40" => Far::start(name, folder, targets).await,
        services::GATEWAY => return services::start(folder, targets).await,
        _ => Peer::ours(name, folder, targets, name == "wolfpack-tls").await,
    };
    Ok(vec![one?])
}

/// A configuration that names `FOLDER` where this run's folder is named.
fn elsewhere(mut configuration: Value, folder: &Path) -> Value {
    match &mut configuration {
        Value::String(text) => *text = text.replace(&*folder.to_string_lossy(), "FOLDER"),
        Value::Array(all) => {
            all.iter_mut().for_each(|one| *one = elsewhere(one.take(), folder));
        }
        Value::Object(all) => {
            all.values_mut().for_each(|one| *one = elsewhere(one.take(), folder));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    configuration
}

/// The rows of one measurement.
async fn measured((round, turn): (usize, usize), measure: &str, peer: &Peer) -> Vec<Row> {
    let row = |measure: &str, unit, value, error| {
        let (peer, measure) = (peer.name.to_owned(), measure.to_owned());
        Row { round, turn, peer, measure, unit, value, error }
    };
    match measures::take(measure, peer).await {
        Ok(values) => values
            .into_iter()
            .map(|(measure, unit, value)| {
                eprintln!("round {round} {:22} {measure:22} {value:10.1} {unit}", peer.name);
                row(measure, unit, Some(value), None)
            })
            .collect(),
        Err(error) => {
            eprintln!("round {round} {:22} {measure:22} FAILED: {error:#}", peer.name);
            let rows = measures::rows_of(measure).iter();
            rows.map(|(name, unit)| row(name, unit, None, Some(format!("{error:#}")))).collect()
        }
    }
}

/// Makes the report of the rounds so far, and writes it in one piece.
fn written(
    configurations: &BTreeMap<String, Value>,
    absent: &BTreeMap<String, String>,
    rows: &[Row],
    rounds: usize,
    out: &Path,
) -> anyhow::Result<Report> {
    let intervals = intervals(rows);
    let report = Report {
        machine: machine::describe(),
        rounds,
        failed: rows.iter().filter(|row| row.value.is_none()).count(),
        absent: absent.clone(),
        configurations: configurations.clone(),
        ratios: intervals.iter().map(|(name, ratio)| (*name, ratio.median)).collect(),
        intervals,
        absolute: absolute(rows),
        medians: medians(rows),
        rows: rows.to_vec(),
    };
    let draft = out.with_extension("part");
    std::fs::write(&draft, serde_json::to_vec_pretty(&report)?)
        .and_then(|()| std::fs::rename(&draft, out))
        .with_context(|| format!("cannot write {}", out.display()))?;
    Ok(report)
}

fn intervals(rows: &[Row]) -> BTreeMap<&'static str, report::Ratio> {
    let plain = |measure: &str| ratio(rows, measure, "wolfpack", "rathole");
    let tls = |measure: &str| ratio(rows, measure, "wolfpack-tls", "rathole");
    [
        ("stream1_up", plain("stream1_up")),
        ("stream1_down", plain("stream1_down")),
        ("stream1_tls_up", tls("stream1_up")),
        ("stream1_tls_down", tls("stream1_down")),
        ("streams16", plain("streams16")),
        ("added_p50", added(rows, "p50", "wolfpack", "rathole")),
        ("added_p50_asleep", added(rows, "p50_asleep", "wolfpack", "rathole")),
        ("c64_rps", plain("c64_rps")),
        ("conns16", plain("conns16")),
        ("gateway_c64_rps", ratio(rows, "c64_rps", services::GATEWAY, "rathole")),
        ("gateway_tls_c64_rps", ratio(rows, "c64_rps", services::GATEWAY_TLS, "rathole")),
    ]
    .into_iter()
    .filter_map(|(name, ratio)| Some((name, ratio?)))
    .collect()
}

/// What is no ratio: medians, in the units of their rows. Of the two ways of the
/// stream the slower one counts.
fn absolute(rows: &[Row]) -> BTreeMap<&'static str, f64> {
    let medians = medians(rows);
    let far = |measure: &str| medians.get(&format!("wolfpack-rtt40 {measure}")).copied();
    let (up, down) = (far("rtt40_stream_up"), far("rtt40_stream_down"));
    [
        ("rtt40_first_byte_warm", far("rtt40_first_byte_warm")),
        ("rtt40_first_byte_cold", far("rtt40_first_byte_cold")),
        ("rtt40_stream_mib_s", up.zip(down).map(|(up, down)| up.min(down))),
        ("rtt40_stream_up_mib_s", up),
        ("rtt40_stream_down_mib_s", down),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

pub(crate) fn summary(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("ratio to rathole    median  (interval)\n");
    for (name, ratio) in &report.intervals {
        let _ = writeln!(
            text,
            "{name:18} {:8.2}  ({:.2} to {:.2}, {} pairs)",
            ratio.median, ratio.low, ratio.high, ratio.pairs
        );
    }
    for (name, value) in &report.absolute {
        let _ = writeln!(text, "{name:38} {value:10.2}");
    }
    for (name, value) in &report.medians {
        let _ = writeln!(text, "{name:38} {value:10.1}");
    }
    for (name, error) in &report.absent {
        let _ = writeln!(text, "{name} was not measured: {error}");
    }
    if report.failed > 0 {
        let _ = writeln!(text, "{} rows have no value; see their errors", report.failed);
    }
    text
}

/// Starts what the tunnels lead to; gives the processes, which must be kept.
async fn start_targets(folder: &Path) -> anyhow::Result<(Addresses, Vec<Child>)> {
    let targets: Addresses = TARGETS.iter().map(|name| ((*name).to_owned(), free())).collect();
    let mut own = targets.clone();
    own.remove("iperf");
    let part = start_part("targets", folder, &own)?;
    let mut iperf = Command::new("iperf3");
    // A client that is gone must not keep the next ones out.
    iperf.args(["--server", "--bind", "127.0.0.1", "--rcv-timeout", "5000", "--port"]);
    iperf.arg(targets["iperf"].port().to_string());
    let iperf = quiet(&mut iperf)?;
    for at in own.values() {
        reachable(*at).await?;
    }
    // Nothing else may connect to find out whether iperf is there.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok((targets, vec![part, iperf]))
}

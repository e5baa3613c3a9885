//! The tunnel beside rathole and `ssh -R`, both ends on this machine: peers take
//! turns within each round, and a ratio is of two rows of one round.

mod clients;
mod identity;
mod parts;
mod peers;
mod report;
mod targets;
mod tools;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use wolfpack_rpc::TlsConfig;

use peers::{Addresses, Peer, TARGETS};
use report::{Report, Row, added, medians, ratio};
use tools::Way;

/// How long each measurement takes.
const EACH: Duration = Duration::from_secs(2);

/// Runs a part of the benchmark in this process.
pub(crate) fn part(name: &str, file: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match name {
        "broker" => runtime.block_on(parts::broker(file)),
        "agent" => runtime.block_on(parts::agent(file)),
        "targets" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let [http, echo]: [SocketAddr; 2] = serde_json::from_slice(&std::fs::read(file)?)?;
            runtime.block_on(targets::serve(http, echo))
        }
        _ => anyhow::bail!("there is no part {name:?}"),
    }
}

/// Which peers and measures to run; all by default.
pub(crate) struct Choice {
    pub(crate) rounds: usize,
    pub(crate) peers: Option<Vec<String>>,
    pub(crate) measures: Option<Vec<String>>,
}

pub(crate) async fn run(choice: Choice) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let (targets, mut others) = start_targets(folder.path()).await?;
    let wants =
        |name: &str| choice.peers.as_ref().is_none_or(|some| some.iter().any(|s| s == name));
    let rathole =
        PathBuf::from(std::env::var("WOLFPACK_RATHOLE").unwrap_or_else(|_| "rathole".into()));
    let mut peers = vec![Peer::direct(&targets)];
    if wants("rathole") {
        peers.push(Peer::rathole(&rathole, folder.path(), &targets).await?);
    }
    if wants("ssh") {
        peers.push(Peer::ssh(folder.path(), &targets).await?);
    }
    for (name, tls) in [("wolfpack", false), ("wolfpack-tls", true)] {
        if wants(name) {
            peers.push(Peer::ours(name, folder.path(), &targets, tls).await?);
        }
    }
    let mut rows = Vec::new();
    for round in 0..choice.rounds {
        for measure in MEASURES {
            if choice.measures.as_ref().is_some_and(|some| !some.iter().any(|s| s == measure)) {
                continue;
            }
            for peer in &peers {
                for (measure, unit, value) in take(measure, peer).await? {
                    eprintln!("round {round} {:14} {measure:14} {value:10.1} {unit}", peer.name);
                    let (peer, measure) = (peer.name.to_owned(), measure.to_owned());
                    rows.push(Row { round, peer, measure, unit, value });
                }
            }
        }
    }
    let configurations =
        peers.iter().map(|peer| (peer.name.to_owned(), peer.configuration.clone())).collect();
    let report = Report {
        machine: machine(),
        configurations,
        ratios: ratios(&rows),
        absolute: BTreeMap::new(),
        medians: medians(&rows),
        rows,
    };
    for process in peers.iter_mut().flat_map(|peer| &mut peer.processes).chain(&mut others) {
        process.kill().await?;
    }
    Ok(report)
}

const MEASURES: [&str; 6] =
    ["stream1_up", "stream1_down", "streams16", "one_client", "c64", "conns16"];

/// Takes one measurement, which may give several values.
async fn take(
    measure: &str,
    peer: &Peer,
) -> anyhow::Result<Vec<(&'static str, &'static str, f64)>> {
    const SPEED: &str = "MiB/s";
    let iperf = peer.front["iperf"];
    let (http, echo) = (peer.front["http"], peer.front["echo"]);
    Ok(match measure {
        "stream1_up" => {
            vec![("stream1_up", SPEED, tools::iperf(iperf, 1, Way::Up, EACH).await?)]
        }
        "stream1_down" => {
            vec![("stream1_down", SPEED, tools::iperf(iperf, 1, Way::Down, EACH).await?)]
        }
        "streams16" => vec![("streams16", SPEED, tools::iperf(iperf, 16, Way::Up, EACH).await?)],
        "one_client" => {
            let (p50, p99) =
                tokio::task::spawn_blocking(move || clients::one_client(http, EACH)).await??;
            vec![("p50", "us", p50), ("p99", "us", p99)]
        }
        "c64" => vec![("c64_rps", "1/s", tools::wrk(&format!("http://{http}/"), 64, EACH).await?)],
        "conns16" => {
            let each = tokio::task::spawn_blocking(move || clients::connections(echo, 16, EACH));
            vec![("conns16", "1/s", each.await??)]
        }
        _ => anyhow::bail!("there is no measure {measure:?}"),
    })
}

fn ratios(rows: &[Row]) -> BTreeMap<&'static str, report::Ratio> {
    let plain = |measure: &str| ratio(rows, measure, "wolfpack", "rathole");
    let tls = |measure: &str| ratio(rows, measure, "wolfpack-tls", "rathole");
    [
        ("stream1_up", plain("stream1_up")),
        ("stream1_down", plain("stream1_down")),
        ("stream1_tls_up", tls("stream1_up")),
        ("stream1_tls_down", tls("stream1_down")),
        ("streams16", plain("streams16")),
        ("added_p50", added(rows, "p50", "wolfpack", "rathole")),
        ("c64_rps", plain("c64_rps")),
        ("conns16", plain("conns16")),
    ]
    .into_iter()
    .filter_map(|(name, ratio)| Some((name, ratio?)))
    .collect()
}

pub(crate) fn summary(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("ratio to rathole    median  (interval)\n");
    for (name, ratio) in &report.ratios {
        let _ = writeln!(
            text,
            "{name:18} {:8.2}  ({:.2} to {:.2}, {} pairs)",
            ratio.median, ratio.low, ratio.high, ratio.pairs
        );
    }
    for (name, value) in &report.absolute {
        let _ = writeln!(text, "{name:30} {value:10.2}");
    }
    for (name, value) in &report.medians {
        let _ = writeln!(text, "{name:30} {value:10.1}");
    }
    text
}

/// Starts what the tunnels lead to; gives the processes, which must be kept.
async fn start_targets(folder: &Path) -> anyhow::Result<(Addresses, Vec<tokio::process::Child>)> {
    let targets: Addresses =
        TARGETS.iter().map(|name| ((*name).to_owned(), peers::free())).collect();
    let ours = peers::start_part("targets", folder, &[targets["http"], targets["echo"]])?;
    let mut iperf = Command::new("iperf3");
    iperf.args(["--server", "--bind", "127.0.0.1", "--port"]);
    iperf.arg(targets["iperf"].port().to_string());
    let iperf = peers::quiet(&mut iperf)?;
    for name in ["http", "echo"] {
        peers::reachable(targets[name]).await?;
    }
    // Nothing else may connect to find out whether iperf is there.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok((targets, vec![ours, iperf]))
}

/// A certificate of a broker at this machine's own address, by a CA of its own.
fn certificate(folder: &Path) -> anyhow::Result<TlsConfig> {
    wolfpack_runtime::install_crypto_provider();
    let authority =
        wolfpack_registry::ca::CertificateAuthority::create_or_load(&folder.join("ca"))?;
    let issued = authority.issue_service("tunnel-broker", &[], &[[127, 0, 0, 1].into()])?;
    let files = TlsConfig {
        certificate_file: folder.join("broker.crt"),
        key_file: folder.join("broker.key"),
        roots_file: folder.join("ca.crt"),
    };
    std::fs::write(&files.certificate_file, issued.certificate_pem)?;
    std::fs::write(&files.key_file, issued.key_pem)?;
    std::fs::write(&files.roots_file, authority.root_pem())?;
    Ok(files)
}

fn machine() -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo").lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(':').map(|(_, m)| m.trim().to_owned())
    });
    json!({
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "processor": model,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

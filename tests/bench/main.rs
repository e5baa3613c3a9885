//! Benchmarks against a fleet that runs: `wolfpack-bench create --out F.json`.
//! Results are times in milliseconds with every row kept; comparisons are made
//! in one run, interleaved.

mod agents;
mod certificate;
mod create;
mod identity;
mod load;
mod machine;
mod nested;
mod parts;
mod processes;
mod quantiles;
mod scrape;
mod soak;
mod timed_client;
mod tunnel;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// The parts of the tunnel's benchmark are ours, and have our allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("part").is_some() {
        let (Some(name), Some(file)) = (arguments.next(), arguments.next()) else { return usage() };
        return ended(parts::run(&name, file.as_ref()));
    }
    let Some(options) = Options::parse(arguments) else { return usage() };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    ended(runtime.block_on(async {
        tokio::select! {
            ended = run(options) => ended,
            // All that was started ends with what was dropped.
            signal = stopped() => signal.and_then(|name| anyhow::bail!("stopped by {name}")),
        }
    }))
}

/// What the command line says; what a benchmark does not take is passed over.
struct Options {
    name: String,
    out: PathBuf,
    tunnel: tunnel::Choice,
    agents: agents::Choice,
    /// How long to soak.
    soak: Duration,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let (mut name, mut out, mut soak) = (None, None, Duration::ZERO);
        let mut tunnel = tunnel::Choice { rounds: 9, peers: None, measures: None };
        let mut agents = agents::Choice { agents: 10_000, idle: Duration::from_secs(30) };
        let list = |text: String| Some(text.split(',').map(str::to_owned).collect());
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--out" => out = Some(PathBuf::from(arguments.next()?)),
                "--rounds" => tunnel.rounds = arguments.next()?.parse().ok()?,
                "--peers" => tunnel.peers = list(arguments.next()?),
                "--measures" => tunnel.measures = list(arguments.next()?),
                "--agents" => agents.agents = arguments.next()?.parse().ok()?,
                "--idle" => agents.idle = Duration::from_secs(arguments.next()?.parse().ok()?),
                other if name.is_none() => name = Some(other.to_owned()),
                seconds if name.as_deref() == Some("soak") => {
                    soak = Duration::from_secs(seconds.parse().ok()?);
                }
                _ => return None,
            }
        }
        Some(Self { name: name?, out: out?, tunnel, agents, soak })
    }
}

/// Runs a benchmark, writes its report and says what it found.
async fn run(options: Options) -> anyhow::Result<()> {
    let Options { name, out, tunnel, agents, soak } = options;
    let (report, summary) = match name.as_str() {
        "create" => {
            let report = create::run(20).await?;
            (serde_json::to_vec_pretty(&report)?, create::summary(&report))
        }
        "load" => {
            let report = load::run(9).await?;
            (serde_json::to_vec_pretty(&report)?, load::summary(&report))
        }
        "nested" => {
            let report = nested::run(20).await?;
            (serde_json::to_vec_pretty(&report)?, nested::summary(&report))
        }
        "tunnel" => {
            let report = tunnel::run(tunnel, &out).await?;
            (serde_json::to_vec_pretty(&report)?, tunnel::summary(&report))
        }
        "agents" => {
            let report = agents::run(agents).await?;
            (serde_json::to_vec_pretty(&report)?, agents::summary(&report))
        }
        "soak" => {
            anyhow::ensure!(!soak.is_zero(), "say how many seconds to soak");
            let report = soak::run(soak, &out).await?;
            (serde_json::to_vec_pretty(&report)?, soak::summary(&report))
        }
        _ => anyhow::bail!("there is no benchmark {name:?}"),
    };
    tokio::fs::write(&out, report).await?;
    println!("{summary}");
    Ok(())
}

/// Waits until the process is told to stop.
async fn stopped() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: wolfpack-bench create|load|nested|tunnel|agents|soak SECONDS --out FILE\n  \
         tunnel: --rounds N, --peers A,B, --measures A,B\n  \
         agents: --agents N, --idle SECONDS\n\
         (WOLFPACK_SERVER and WOLFPACK_API_KEY say where; for load WOLFPACK_READY and WOLFPACK_PID \
         which `wolfpack dev`; for tunnel WOLFPACK_RATHOLE where rathole is, and WOLFPACK_BINARIES in which folder our \
         programs are)"
    );
    ExitCode::from(64)
}

//! Benchmarks against a fleet that runs: `wolfpack-bench create --out F.json`.
//! Results are times in milliseconds with every row kept; comparisons are made
//! in one run, interleaved.

mod create;
mod load;
mod nested;
mod quantiles;
mod timed_client;
mod tunnel;

use std::path::PathBuf;
use std::process::ExitCode;

/// The parts of the tunnel's benchmark are ours, and have our allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("part").is_some() {
        let (Some(name), Some(file)) = (arguments.next(), arguments.next()) else { return usage() };
        return ended(tunnel::part(&name, file.as_ref()));
    }
    let (mut name, mut out) = (None, None);
    let mut choice = tunnel::Choice { rounds: 9, peers: None, measures: None };
    let list = |text: Option<String>| text.map(|text| text.split(',').map(str::to_owned).collect());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--out" => out = arguments.next().map(PathBuf::from),
            "--rounds" => match arguments.next().and_then(|rounds| rounds.parse().ok()) {
                Some(rounds) => choice.rounds = rounds,
                None => return usage(),
            },
            "--peers" => choice.peers = list(arguments.next()),
            "--measures" => choice.measures = list(arguments.next()),
            other if name.is_none() => name = Some(other.to_owned()),
            _ => return usage(),
        }
    }
    let (Some(name), Some(out)) = (name, out) else { return usage() };
    let run = async {
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
                let report = tunnel::run(choice).await?;
                (serde_json::to_vec_pretty(&report)?, tunnel::summary(&report))
            }
            _ => anyhow::bail!("there is no benchmark {name:?}"),
        };
        tokio::fs::write(&out, report).await?;
        println!("{summary}");
        anyhow::Ok(())
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    ended(runtime.block_on(run))
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
        "usage: wolfpack-bench create|load|nested|tunnel --out FILE\n\
         tunnel takes --rounds N, --peers A,B and --measures A,B, too\n(WOLFPACK_SERVER and WOLFPACK_API_KEY say where; \
         for load WOLFPACK_READY and WOLFPACK_PID which `wolfpack dev`)"
    );
    ExitCode::from(64)
}

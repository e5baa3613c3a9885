//! The process that keeps the sandbox's engine: this binary started as
//! `wolfpack-sandbox-agent engine --order JSON`. It prepares what the engine
//! needs, starts it, tells the agent what became of it, and ends it when its
//! stdin ends. An engine that it loses is told and not started again here: the
//! next use does.

mod checks;
mod containers;
mod life;

use std::io::Write as _;
use std::process::ExitCode;

use super::order::{Order, Report};

/// The subcommand that makes this binary the keeper.
pub const SUBCOMMAND: &str = "engine";

/// What it is told.
#[derive(Debug, clap::Args)]
pub struct WardenArgs {
    /// The order, as JSON.
    #[arg(long)]
    order: String,
}

/// Keeps one engine from start to end.
#[must_use]
pub fn run(args: &WardenArgs) -> ExitCode {
    // What dockerd makes is for all users to read as it decides.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let order: Order = match serde_json::from_str(&args.order) {
        Ok(order) => order,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "the engine's keeper is started by the agent only: {error}"
            );
            return ExitCode::from(64);
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&life::failed(format!("the engine's keeper has no threads: {error}")));
            return ExitCode::FAILURE;
        }
    };
    let last = runtime.block_on(life::keep(order));
    runtime.shutdown_background();
    match last {
        Some(report) => {
            tell(&report);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// Tells the agent; nobody is left to be told when that fails.
fn tell(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    }
}

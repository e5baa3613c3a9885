//! What the program is called with.

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wolfpack_dockerd::status::InitStatus;
use wolfpack_runtime::config;

use crate::{Config, exit, pid1, supervise};

/// The variables begin with this.
pub(crate) const PREFIX: &str = "WOLFPACK_INIT";

/// PID 1 of the wolf image. Configured by WOLFPACK_INIT__... and, for the
/// agent it runs, WOLFPACK_WOLF__... in the environment.
#[derive(Debug, Parser)]
#[command(name = "wolfpack-wolf-init", version)]
struct Arguments {
    /// Prints the configuration as TOML and exits.
    #[arg(long)]
    dump_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The inner process; started by PID 1.
    #[command(hide = true)]
    Supervise,
    /// Whether dockerd and the agent run: ends with 0 or 1 and a line that says
    /// what is missing.
    Health,
    /// Prints what the init says about itself, as JSON.
    Status,
}

/// Does what it is called with.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let config: Config = match config::load(PREFIX, None) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("wolfpack-wolf-init: {error}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    if arguments.dump_config {
        return match config::dump(&config) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("wolfpack-wolf-init: {error}");
                ExitCode::from(exit::CONFIG)
            }
        };
    }
    match arguments.command {
        None => pid1::run(&config),
        Some(Command::Supervise) => supervise::run(&config),
        Some(Command::Health) => with_status(&config.run_dir, |status| {
            println!("{}", health(status));
            ExitCode::from(u8::from(!status.healthy()))
        }),
        Some(Command::Status) => with_status(&config.run_dir, |status| {
            match serde_json::to_string_pretty(status) {
                Ok(text) => println!("{text}"),
                Err(error) => eprintln!("{error}"),
            }
            ExitCode::SUCCESS
        }),
    }
}

fn with_status(run_dir: &Path, say: impl FnOnce(&InitStatus) -> ExitCode) -> ExitCode {
    match InitStatus::read(run_dir) {
        Ok(status) => say(&status),
        Err(error) => {
            println!("no status in {}: {error}", run_dir.display());
            ExitCode::from(exit::UNHEALTHY)
        }
    }
}

/// One line: what runs, what does not, what is missing.
fn health(status: &InitStatus) -> String {
    let child = |name: &str, child: &wolfpack_dockerd::status::Child| {
        let trouble = child.trouble.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{name} {:?}{trouble}", child.state).to_lowercase()
    };
    let mut line = format!(
        "{}; {}; {}",
        format!("{:?}", status.state).to_lowercase(),
        child("dockerd", &status.engine),
        child("agent", &status.agent)
    );
    for step in status.degraded() {
        line.push_str(&format!("; without {}: {}", step.name, step.note));
    }
    if let Some(failed) = &status.failed {
        line.push_str(&format!("; {failed}"));
    }
    line
}

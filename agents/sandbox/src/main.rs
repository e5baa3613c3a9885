//! The binary: PID 1 of a sandbox, or, for each program it starts, the helper.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wolfpack_sandbox_agent::agent;
use wolfpack_sandbox_agent::boot::BootDir;
use wolfpack_sandbox_agent::docker::warden::{self, WardenArgs};
use wolfpack_sandbox_agent::probe::{self, ProbeArgs};
use wolfpack_sandbox_agent::process::child::{self, ChildArgs};

/// The agent inside a sandbox. It runs as PID 1 and takes its configuration
/// from the directory of the boot.
#[derive(Parser)]
#[command(name = "wolfpack-sandbox-agent", version)]
struct Arguments {
    /// The directory of the boot.
    #[arg(long, default_value = wolfpack_types::sandbox_boot::BOOT_DIR)]
    boot_dir: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Becomes another program; for the agent itself.
    #[command(name = child::SUBCOMMAND, hide = true)]
    Spawn(ChildArgs),
    /// Asks what could be reached from here beyond the sandbox.
    #[command(name = probe::SUBCOMMAND)]
    Probe(ProbeArgs),
    /// Keeps the sandbox's own Docker engine; for the agent itself.
    #[command(name = warden::SUBCOMMAND, hide = true)]
    Engine(WardenArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Spawn(args)) => child::run(&args),
        Some(Command::Probe(args)) => probe::run(&args),
        Some(Command::Engine(args)) => warden::run(&args),
        None => agent::run(&BootDir::at(arguments.boot_dir)),
    }
}

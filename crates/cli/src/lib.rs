//! The `wolfpack` binary: the command line, and `wolfpack dev`, which runs
//! everything in one process.
//!
//! The command line is a plain client of the gateway: it uses the same API as
//! every program, and nothing else.

pub mod args;
mod command;
mod connect;
pub mod context;
pub mod dev;
pub mod exit;
mod failure;
mod output;
mod progress;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};
use failure::Failure;

/// Runs one command and answers its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to do when even stderr is closed.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    wolfpack_runtime::install_crypto_provider();
    if let Command::Dev(arguments) = arguments.command {
        return dev::run(arguments);
    }
    let json = arguments.command.wants_json();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Failure::from(error).report(json),
        };
    let result = runtime.block_on(command::run(arguments));
    // A thread that waits for a key press must not hold the exit.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    }
}

//! `wolfpack dev`.
use std::process::ExitCode;
pub fn run(_: crate::args::dev::DevArgs) -> ExitCode { ExitCode::FAILURE }

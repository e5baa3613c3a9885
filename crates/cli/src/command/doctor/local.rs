//! The checks of the wolf agent, on this machine.

use std::path::Path;
use std::process::ExitCode;

use futures::StreamExt as _;
use wolfpack_wolf_agent::Config;
use wolfpack_wolf_agent::doctor::{Place, run_checks};

use super::report::Report;
use crate::args::doctor::DoctorArgs;
use crate::failure::Failure;

/// How the agent is told by variables.
const VARIABLES: &str = "WOLFPACK_WOLF";
/// Where `scripts/install-wolf` puts the agent's configuration.
const INSTALLED: &str = "/etc/wolfpack-wolf/wolf.toml";

/// Needs no server: a wolf that cannot reach it is what a doctor is for.
pub(in crate::command) async fn run(arguments: &DoctorArgs) -> Result<ExitCode, Failure> {
    let config = config(arguments.config.as_deref())?;
    let mut report = Report::new(arguments.is_json());
    let mut checks = std::pin::pin!(run_checks(Place::of(&config)).await);
    while let Some(check) = checks.next().await {
        report.add(&check.into())?;
    }
    report.end()
}

/// That of the agent where there is one; a machine that is no wolf yet is
/// checked as one with defaults would be.
fn config(given: Option<&Path>) -> Result<Config, Failure> {
    let installed = Path::new(INSTALLED);
    let file = given.or_else(|| installed.exists().then_some(installed));
    let told = std::env::vars_os().any(|(name, _)| {
        name.to_str().is_some_and(|name| name.starts_with(&format!("{VARIABLES}__")))
    });
    if file.is_none() && !told {
        return Ok(Config::default());
    }
    wolfpack_runtime::config::load(VARIABLES, file)
        .map_err(|error| Failure::usage(format!("the wolf agent's configuration: {error}")))
}

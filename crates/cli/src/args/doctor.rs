//! `wolfpack doctor`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, OutputArgs};

/// `wolfpack doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
On a wolf, without more, this machine is checked. Each line is pass, warn, fail or
skip, with what to do; the exit code is 1 when one is fail.")]
pub struct DoctorArgs {
    /// Check this wolf through its tunnel: id, wolves/{id} or display name
    #[arg(long, conflicts_with = "probe")]
    pub wolf: Option<String>,
    /// Try to break out of this sandbox from inside, without harm
    #[arg(long, value_name = "SANDBOX")]
    pub probe: Option<String>,
    /// The configuration of this machine's wolf agent
    #[arg(long, value_name = "FILE", conflicts_with_all = ["wolf", "probe"])]
    pub config: Option<PathBuf>,
    /// The same as -o json
    #[arg(long)]
    pub json: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl DoctorArgs {
    /// Whether this machine is meant, for which no server is needed.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.wolf.is_none() && self.probe.is_none()
    }

    /// Whether programs read it.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json || self.output.output == Format::Json
    }
}

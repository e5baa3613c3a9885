//! `wolfpack tunnel …`.

use clap::Subcommand;

use super::OutputArgs;

/// Look at the tunnels that agents hold.
#[derive(Debug, Subcommand)]
pub enum TunnelCommand {
    /// List the tunnels this key may see
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Show tunnels as they come and go
    Watch(OutputArgs),
}

impl TunnelCommand {
    pub(crate) fn output(&self) -> OutputArgs {
        match self {
            Self::List(output) | Self::Watch(output) => *output,
        }
    }
}

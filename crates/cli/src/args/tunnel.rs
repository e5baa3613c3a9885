//! `wolfpack tunnel …`.

use clap::{Args, Subcommand};

use super::OutputArgs;
use super::forward::EndpointArg;

/// Look at the tunnels that agents hold, and end one.
#[derive(Debug, Subcommand)]
pub enum TunnelCommand {
    /// List the tunnels this key may see
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Show the tunnel of a wolf or a sandbox
    Get(TunnelGetArgs),
    /// End the tunnel of a wolf or a sandbox; its agent attaches again
    Close(TunnelCloseArgs),
    /// Show tunnels as they come and go: TIME is when one attached, and when its end was heard of
    Watch(OutputArgs),
}

/// `wolfpack tunnel get`.
#[derive(Debug, Args)]
pub struct TunnelGetArgs {
    /// wolf/ID or sandbox/ID; a display name will do for ID
    #[arg(value_name = "wolf/ID|sandbox/ID")]
    pub endpoint: EndpointArg,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack tunnel close`.
#[derive(Debug, Args)]
pub struct TunnelCloseArgs {
    /// wolf/ID or sandbox/ID; a display name will do for ID
    #[arg(value_name = "wolf/ID|sandbox/ID")]
    pub endpoint: EndpointArg,
    /// Only this session, as `get` shows it
    #[arg(long, value_name = "SESSION", default_value = "")]
    pub session: String,
    /// Why, for the audit log and the agent
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl TunnelCommand {
    pub(crate) fn output(&self) -> OutputArgs {
        match self {
            Self::List(output) | Self::Watch(output) => *output,
            Self::Get(arguments) => arguments.output,
            Self::Close(arguments) => arguments.output,
        }
    }
}

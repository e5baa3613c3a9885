//! `wolfpack wolf|project|key|join-token …`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use wolfpack_proto::registry::v1 as registry;

use super::OutputArgs;
use super::values;

/// `wolfpack wolf …`.
#[derive(Debug, Subcommand)]
pub enum WolfCommand {
    /// List the wolves this key may see
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Show one wolf
    Get {
        /// Id, wolves/{id} or display name
        wolf: String,
        /// How to print it.
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl WolfCommand {
    pub(crate) fn output(&self) -> OutputArgs {
        match self {
            Self::List(output) | Self::Get { output, .. } => *output,
        }
    }
}

/// `wolfpack project …`.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// List the projects the user of this key belongs to
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Make a project; platform admins only
    Create {
        /// A name for people
        display_name: String,
        /// How to print it.
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl ProjectCommand {
    pub(crate) fn output(&self) -> OutputArgs {
        match self {
            Self::List(output) | Self::Create { output, .. } => *output,
        }
    }
}

/// `wolfpack key …`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and show it, this once
    Create(KeyCreateArgs),
    /// List keys without their secrets
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// End a key at once
    Revoke {
        /// Id or apiKeys/{id}
        key: String,
        /// How to print it.
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl KeyCommand {
    pub(crate) fn output(&self) -> OutputArgs {
        match self {
            Self::Create(arguments) => arguments.output,
            Self::List(output) | Self::Revoke { output, .. } => *output,
        }
    }
}

/// `wolfpack key create`.
#[derive(Debug, Args)]
pub struct KeyCreateArgs {
    /// users/{id} it is for [default: the user of this key]
    #[arg(long)]
    pub user: Option<String>,
    /// projects/{id} it acts in [default: the project of this key]
    #[arg(long)]
    pub project: Option<String>,
    /// The most it may do
    #[arg(long, value_enum, default_value = "developer")]
    pub role: RoleArg,
    /// A name for people
    #[arg(long, default_value = "")]
    pub name: String,
    /// How long it works [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub ttl: Option<Duration>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Read
    Viewer,
    /// Make, use and end sandboxes
    Developer,
    /// Manage keys, members and wolves of the project
    Admin,
}

impl From<RoleArg> for registry::Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Developer => Self::Developer,
            RoleArg::Admin => Self::Admin,
        }
    }
}

/// `wolfpack join-token …`.
#[derive(Debug, Subcommand)]
pub enum JoinTokenCommand {
    /// Make a token with which one wolf can join, once
    Create(JoinTokenCreateArgs),
}

/// `wolfpack join-token create`.
#[derive(Debug, Args)]
pub struct JoinTokenCreateArgs {
    /// projects/{id} that alone may use the wolf [default: every project]
    #[arg(long)]
    pub project: Option<String>,
    /// How long the token works, at most 30 days
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    pub ttl: Duration,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

//! `wolfpack exposure …`.

use std::time::Duration;

use clap::{Args, Subcommand};
use wolfpack_types::{ExposureId, Target};

use super::forward::{EndpointArg, target_of};
use super::{OutputArgs, values};

/// Open ports of the broker that lead to targets, look at them and end them.
#[derive(Debug, Subcommand)]
pub enum ExposureCommand {
    /// Open a port of the broker: whoever reaches it reaches the target
    Create(ExposureCreateArgs),
    /// List the exposures this key may see
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Show one: where it listens, its counts, and why a connection failed last
    Get(ExposureArgs),
    /// Close one and end its connections
    #[command(visible_alias = "rm")]
    Delete(ExposureArgs),
}

/// `wolfpack exposure create`.
#[derive(Debug, Args)]
pub struct ExposureCreateArgs {
    /// wolf/ID or sandbox/ID; a display name will do for ID
    #[arg(value_name = "wolf/ID|sandbox/ID")]
    pub endpoint: EndpointArg,
    /// A name that `wolfpack tunnel get` shows, tcp:PORT, or PORT alone for the same
    #[arg(value_parser = target_of)]
    pub target: Target,
    /// The port to listen on; without it any that the broker gives
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How long it lives; the broker cuts it to what it allows, 7 days unless its operator says
    /// otherwise, and it ends with the key that makes it
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    pub lifetime: Duration,
    /// Connections at once; without it as many as the broker allows
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,
    /// New connections in a second; without it as many as the broker allows
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_second: Option<u32>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack exposure get` and `delete`.
#[derive(Debug, Args)]
pub struct ExposureArgs {
    /// exposures/ID, or ID alone
    #[arg(value_name = "ID", value_parser = exposure)]
    pub exposure: ExposureId,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn exposure(text: &str) -> Result<ExposureId, String> {
    let id = text.strip_prefix("exposures/").unwrap_or(text);
    ExposureId::parse(id).map_err(|_| "write exposures/ID, or ID alone".to_owned())
}

impl ExposureCommand {
    pub(crate) fn output(&self) -> OutputArgs {
        match self {
            Self::Create(arguments) => arguments.output,
            Self::List(output) => *output,
            Self::Get(arguments) | Self::Delete(arguments) => arguments.output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposure_is_named_with_or_without_what_it_is() {
        for text in ["abc", "exposures/abc"] {
            assert_eq!(exposure(text).unwrap().name(), "exposures/abc");
        }
        assert!(exposure("wolves/abc").is_err());
    }
}

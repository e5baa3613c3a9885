//! What can be typed.

pub mod doctor;
pub mod encoder;
pub mod exposure;
pub mod forward;
pub mod identity;
pub mod image;
pub mod mount;
pub mod sandbox;
pub mod shape;
pub mod tunnel;
pub mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs sandboxes on a fleet of wolves.
#[derive(Debug, Parser)]
#[command(name = "wolfpack", version, after_long_help = crate::exit::TABLE)]
pub struct Arguments {
    /// Where and as whom.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the gateway is and which key to show it.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectionArgs {
    /// The gateway, such as https://wolfpack.example:8443 [default: the context that `wolfpack dev` writes]
    #[arg(long, global = true, env = "WOLFPACK_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// A file with the CA certificates (PEM) that the server is checked against
    #[arg(long, global = true, env = "WOLFPACK_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The key. By the environment only: other users of the machine see arguments.
    #[arg(skip = api_key())]
    pub api_key: Option<secrecy::SecretString>,
}

fn api_key() -> Option<secrecy::SecretString> {
    std::env::var("WOLFPACK_API_KEY").ok().filter(|key| !key.is_empty()).map(Into::into)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole fleet in this process, with a wolf on this machine's Docker engine
    Dev(crate::dev::DevArgs),
    /// Make, use and end sandboxes
    #[command(subcommand, visible_alias = "sb")]
    Sandbox(sandbox::SandboxCommand),
    /// Look at the wolves
    #[command(subcommand)]
    Wolf(identity::WolfCommand),
    /// Put images on wolves, list and remove them
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Reach what a wolf or a sandbox serves, from this machine
    PortForward(forward::PortForwardArgs),
    /// Say whether a wolf is well, and what to do where it is not
    Doctor(doctor::DoctorArgs),
    /// Look at the tunnels that agents hold, and end one
    #[command(subcommand)]
    Tunnel(tunnel::TunnelCommand),
    /// Open ports of the broker that lead to targets, for programs that only know addresses
    #[command(subcommand)]
    Exposure(exposure::ExposureCommand),
    /// Say of every wolf whether a sandbox would fit there, and if not, why
    Explain(sandbox::ExplainArgs),
    /// Manage projects
    #[command(subcommand)]
    Project(identity::ProjectCommand),
    /// Manage API keys
    #[command(subcommand)]
    Key(identity::KeyCommand),
    /// Let wolves join
    #[command(subcommand)]
    JoinToken(identity::JoinTokenCommand),
}

impl Command {
    /// Whether errors are to be printed as JSON, too.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Dev(_) => false,
            Self::Sandbox(command) => command.wants_json(),
            Self::Wolf(command) => command.output().is_json(),
            Self::Image(command) => command.output().is_json(),
            Self::PortForward(arguments) => arguments.output.is_json(),
            Self::Doctor(arguments) => arguments.is_json(),
            Self::Tunnel(command) => command.output().is_json(),
            Self::Exposure(command) => command.output().is_json(),
            Self::Explain(arguments) => arguments.output.is_json(),
            Self::Project(command) => command.output().is_json(),
            Self::Key(command) => command.output().is_json(),
            Self::JoinToken(identity::JoinTokenCommand::Create(arguments)) => {
                arguments.output.is_json()
            }
        }
    }
}

/// How to print what was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// `-o`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OutputArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

impl OutputArgs {
    /// Whether programs read it.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.output == Format::Json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound_and_help_shows_the_exit_codes() {
        Arguments::command().debug_assert();
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("Exit codes:"), "{help}");
    }

    #[test]
    fn what_follows_two_dashes_is_the_program() {
        let parsed = Arguments::parse_from([
            "wolfpack", "sandbox", "exec", "-it", "box", "--", "ls", "-l", "--server",
        ]);
        let Command::Sandbox(sandbox::SandboxCommand::Exec(exec)) = parsed.command else {
            panic!()
        };
        assert!(exec.interactive && exec.tty);
        assert_eq!(exec.command, ["ls", "-l", "--server"]);
        assert_eq!(exec.sandbox, "box");
    }
}

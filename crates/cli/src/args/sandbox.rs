//! `wolfpack sandbox …` and `wolfpack explain`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::OutputArgs;
use super::shape::ShapeArgs;
use super::values::{self, Pair};

/// What to do with sandboxes. SANDBOX is an id, sandboxes/{id} or a display name.
#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Make a sandbox and wait until it runs
    Create(CreateArgs),
    /// List the sandboxes of the project
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one sandbox
    Get(GetArgs),
    /// Show changes as they happen
    Watch(WatchArgs),
    /// End sandboxes
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Run a program in a sandbox; its exit code becomes this command's
    Exec(ExecArgs),
    /// Show what the sandbox's main process printed
    Logs(LogsArgs),
    /// List the containers that the sandbox started
    Containers(ContainersArgs),
    /// Make a link to a port of a sandbox, for whoever has it, and print its URL
    Link(LinkArgs),
    /// Save what the desktop shows, as PNG
    Screenshot(ScreenshotArgs),
    /// Read or write the clipboard of the desktop
    #[command(subcommand)]
    Clipboard(ClipboardCommand),
}

impl SandboxCommand {
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Create(CreateArgs { output, .. })
            | Self::List(ListArgs { output, .. })
            | Self::Get(GetArgs { output, .. })
            | Self::Watch(WatchArgs { output, .. })
            | Self::Delete(DeleteArgs { output, .. })
            | Self::Containers(ContainersArgs { output, .. })
            | Self::Link(LinkArgs { output, .. }) => output.is_json(),
            Self::Screenshot(arguments) => arguments.target().is_ok_and(|(_, json)| json),
            Self::Exec(_) | Self::Logs(_) | Self::Clipboard(_) => false,
        }
    }
}

/// `wolfpack sandbox create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The image [default: the server's, with or without a desktop]
    #[arg(long)]
    pub image: Option<String>,
    /// A name for people, unique among the project's live sandboxes
    #[arg(long)]
    pub name: Option<String>,
    /// What it needs.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// A label to find it by
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<Pair>,
    /// A variable of its environment
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<Pair>,
    /// Do not wait until it runs
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait; the sandbox stays when it takes longer
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration, conflicts_with = "no_wait")]
    pub timeout: Duration,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to run in place of the image's own command; it must keep running, as the sandbox ends with it
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `wolfpack sandbox list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those with this label; with all that are given
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<Pair>,
    /// Those that are deleted, too
    #[arg(short, long)]
    pub all: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack sandbox get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Id, sandboxes/{id} or display name
    pub sandbox: String,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack sandbox watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Id, sandboxes/{id} or display name; all of the project without it
    pub sandbox: Option<String>,
    /// How to print it: a line or a JSON object per change.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack sandbox delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Ids, sandboxes/{id} or display names
    #[arg(required = true)]
    pub sandbox: Vec<String>,
    /// Do not wait until it is gone
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for each; it goes on being deleted when it takes longer
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = values::duration, conflicts_with = "no_wait")]
    pub timeout: Duration,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack sandbox exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pass stdin on to the program
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// The user to run as [default: the image's]
    #[arg(short, long)]
    pub user: Option<String>,
    /// The working directory [default: the image's]
    #[arg(long, value_name = "FOLDER")]
    pub cwd: Option<String>,
    /// A variable of its environment
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<Pair>,
    /// Id, sandboxes/{id} or display name
    pub sandbox: String,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `wolfpack sandbox logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on with new output until the sandbox ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tail: Option<u32>,
    /// Id, sandboxes/{id} or display name
    pub sandbox: String,
}

/// `wolfpack sandbox containers`.
#[derive(Debug, Args)]
pub struct ContainersArgs {
    /// Id, sandboxes/{id} or display name
    pub sandbox: String,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack sandbox link`.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Id, sandboxes/{id} or display name
    pub sandbox: String,
    /// The port that something listens on in the sandbox, or will
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// How long it lives, 1 minute to 7 days; it cannot be taken back before, but ends with the sandbox
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = values::link_life)]
    pub life: Duration,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack sandbox screenshot`.
#[derive(Debug, Args)]
pub struct ScreenshotArgs {
    /// Id, sandboxes/{id} or display name
    pub sandbox: String,
    /// Where to save it, `-` for stdout; beside --file, the format (table or json) to print what was saved in
    #[arg(short, long, value_name = "FILE", required_unless_present = "file")]
    output: Option<OsString>,
    /// Where to save it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ScreenshotArgs {
    /// The file, and whether to print facts as JSON.
    ///
    /// # Errors
    /// In words, when `-o` is no format although the file is given by `--file`.
    pub(crate) fn target(&self) -> Result<(PathBuf, bool), String> {
        match (&self.file, self.output.as_deref()) {
            (None, output) => Ok((output.unwrap_or_default().into(), false)),
            (Some(file), None) => Ok((file.clone(), false)),
            (Some(file), Some(format)) if format == "table" => Ok((file.clone(), false)),
            (Some(file), Some(format)) if format == "json" => Ok((file.clone(), true)),
            (Some(_), Some(_)) => {
                Err("give the file once; beside --file, -o is table or json".to_owned())
            }
        }
    }
}

/// `wolfpack sandbox clipboard …`.
#[derive(Debug, Subcommand)]
pub enum ClipboardCommand {
    /// Print the text on the clipboard
    Get {
        /// Id, sandboxes/{id} or display name
        sandbox: String,
    },
    /// Put a text on the clipboard
    Set {
        /// Id, sandboxes/{id} or display name
        sandbox: String,
        /// The text [default: stdin]
        text: Option<String>,
    },
}

/// `wolfpack explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The image: of equally good wolves one that holds it comes first
    #[arg(long)]
    pub image: Option<String>,
    /// What would be needed.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

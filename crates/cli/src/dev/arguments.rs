//! The arguments of `wolfpack dev`.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Run a whole fleet in this process, with a wolf on this machine.
#[derive(Debug, Clone, clap::Args)]
pub struct DevArgs {
    /// Folder of the fleet's state [default: wolfpack in $XDG_DATA_HOME or ~/.local/share].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the gateway listens with TLS; port 0 for a free one [default: 127.0.0.1:8443].
    #[arg(long, value_name = "ADDRESS")]
    pub tls: Option<SocketAddr>,
    /// Where the gateway listens without TLS, loopback only; port 0 for a free one
    /// [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,
    /// Where agents attach; port 0 for a free one. Another address than a loopback one lets
    /// wolves on other machines join [default: 127.0.0.1:8444].
    #[arg(long, value_name = "ADDRESS")]
    pub agents: Option<SocketAddr>,
    /// Name by which other machines reach this one, for its certificates; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// The Docker engine's unix socket [default: /var/run/docker.sock].
    #[arg(long, value_name = "PATH")]
    pub docker: Option<String>,
    /// What the wolf is.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = WolfKind::Image)]
    pub wolf: WolfKind,
    /// The image of the wolf, for --wolf image.
    #[arg(long, value_name = "IMAGE", default_value = "wolfpack/wolf:latest")]
    pub wolf_image: String,
    /// An image of this machine's engine to put into the wolf, for --wolf image; may be repeated
    /// [default: the sandbox images that are there].
    #[arg(long, value_name = "IMAGE")]
    pub seed: Vec<String>,
    /// A folder of this machine that sandboxes may mount from, read and write; may be repeated.
    #[arg(long, value_name = "DIR")]
    pub mount_root: Vec<PathBuf>,
    /// The static agent that runs in every sandbox, for --wolf engine [default: beside this
    /// program, or in PATH].
    #[arg(long, value_name = "FILE")]
    pub sandbox_agent: Option<PathBuf>,
    /// Write a JSON file with addresses and key, mode 0600, as soon as the fleet is ready.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// For scripts: free ports unless given, no CLI context written, and at the end the wolf's
    /// container, volumes and network removed; with --wolf engine the sandboxes' network, when
    /// nothing is left on it.
    #[arg(long)]
    pub ephemeral: bool,
}

/// What the wolf is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WolfKind {
    /// A container of the wolf image, with a Docker engine of its own.
    Image,
    /// This machine's own Docker engine.
    Engine,
}

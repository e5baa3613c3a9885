//! `wolfpack image …`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::OutputArgs;

/// What to do with the images of wolves. WOLF is an id, wolves/{id} or a
/// display name.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the images that a wolf holds
    #[command(visible_alias = "ls")]
    List(ImageListArgs),
    /// Put an image of this machine's Docker, or of an archive, on wolves
    Push(ImagePushArgs),
    /// Take a name from an image of a wolf, and the image with its last name
    #[command(visible_alias = "rm")]
    Remove(ImageRemoveArgs),
}

impl ImageCommand {
    pub(crate) fn output(&self) -> OutputArgs {
        match self {
            Self::List(arguments) => arguments.output,
            Self::Push(arguments) => arguments.output,
            Self::Remove(arguments) => arguments.output,
        }
    }
}

/// `wolfpack image list`.
#[derive(Debug, Args)]
pub struct ImageListArgs {
    /// The wolf [default: the only one there is]
    #[arg(long)]
    pub wolf: Option<String>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack image push`.
#[derive(Debug, Args)]
#[command(after_help = "\
A push that breaks is gone on with by itself, and by the same command within a
day. An archive is one that `docker save` wrote; a name that ends with .tar, or
has a / at its begin or a ./, is taken for a file. The image is read from the
Docker engine at DOCKER_HOST (a unix socket), or /var/run/docker.sock.")]
pub struct ImagePushArgs {
    /// An image of this machine's Docker, or an archive
    #[arg(value_name = "IMAGE|FILE.tar")]
    pub image: OsString,
    /// The wolf; may be given more than once [default: the only one there is]
    #[arg(long)]
    pub wolf: Vec<String>,
    /// Every wolf this key may see that is online
    #[arg(long, conflicts_with = "wolf")]
    pub all: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `wolfpack image remove`.
#[derive(Debug, Args)]
pub struct ImageRemoveArgs {
    /// The wolf [default: the only one there is]
    #[arg(long)]
    pub wolf: Option<String>,
    /// Names or ids of images
    #[arg(required = true)]
    pub image: Vec<String>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

//! Where checks look.

use std::path::{Path, PathBuf};

use wolfpack_dockerd::outer::Outer;
use wolfpack_dockerd::place::mounts::{self, Mount};
use wolfpack_dockerd::status::InitStatus;

use super::engine::{self, EngineLook};
use crate::config::Config;

/// Folders of programs, below the root.
const PROGRAMS: [&str; 6] =
    ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// Where checks look: this machine, or a made tree.
#[derive(Debug, Clone)]
pub struct Place {
    /// What `/` is: `/proc`, `/sys`, `/dev`, `/etc`, `/run` and programs are
    /// looked for below it.
    pub root: PathBuf,
    /// The engine's unix socket.
    pub docker_socket: PathBuf,
    /// Where the agent keeps identity and state.
    pub data_dir: PathBuf,
    /// The gateway, `https://host:port`; empty when it is not known.
    pub gateway: String,
    /// Roots to trust the gateway by, PEM; none before the wolf joined.
    pub trust_roots: Option<PathBuf>,
    /// Port that resolvers listen on.
    pub dns_port: u16,
}

impl Place {
    /// This machine, as its wolf agent is configured.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            root: "/".into(),
            docker_socket: config.docker_socket().to_owned(),
            data_dir: config.data_dir.clone(),
            gateway: config.server.clone(),
            trust_roots: Some(config.data_dir.join("identity/ca.crt")),
            dns_port: 53,
        }
    }

    /// A path below the root.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The content of a file below the root, without blanks around it.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.at(path)).ok()?.trim().to_owned())
    }

    /// A program, if it is there.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        let mut found = PROGRAMS.iter().map(|folder| self.root.join(folder).join(name));
        found.find(|program| program.is_file())
    }

    /// What is mounted.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        mounts::parse(&self.text("proc/self/mountinfo").unwrap_or_default())
    }
}

/// What several checks look at, read once.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) place: Place,
    pub(super) outer: Result<Outer, String>,
    pub(super) engine: Result<EngineLook, String>,
    pub(super) init: Option<InitStatus>,
    pub(super) mounts: Vec<Mount>,
}

impl Look {
    pub(super) async fn at(place: Place) -> Self {
        let (outer, engine) =
            tokio::join!(Outer::read(&place.root), engine::look(&place.docker_socket));
        // A status of an older or newer init may lack what is looked for.
        let init = InitStatus::read(&place.at("run")).ok();
        let mounts = place.mounts();
        Self { outer: outer.map_err(|error| error.to_string()), engine, init, mounts, place }
    }

    /// Where the engine keeps its data.
    pub(super) fn data_root(&self) -> PathBuf {
        let said = self.engine.as_ref().ok().and_then(|engine| engine.data_root.clone());
        said.unwrap_or_else(|| Path::new("/var/lib/docker").to_owned())
    }
}

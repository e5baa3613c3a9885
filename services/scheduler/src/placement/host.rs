//! A wolf as placement sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wolfpack_types::capacity::{Capacity, Ledger};
use wolfpack_types::{DockerMode, ProjectId, WolfId};

/// The health of a wolf as the registry says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Heartbeat fresh, tunnel attached.
    Online,
    /// Something is overdue.
    Suspect,
    /// Away.
    Offline,
    /// Here, but its engine does not work.
    Degraded,
    /// The registry said something this version does not know.
    Unknown,
}

impl Health {
    /// Its word in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Suspect => "suspect",
            Self::Offline => "offline",
            Self::Degraded => "degraded",
            Self::Unknown => "in an unknown state",
        }
    }
}

/// What a wolf offers beside its goods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// What its engine can give of Docker beside nothing.
    pub docker_modes: BTreeSet<DockerMode>,
    /// Folders below which sandboxes may mount.
    pub mount_paths: Vec<String>,
    /// Whether sandboxes of every project may mount there, and not only those
    /// of the project that owns the wolf.
    pub mounts_every_project: bool,
    /// Why it takes nothing new for want of disk; empty when there is enough.
    pub disk_pressure: String,
    /// Names of the images it holds, as [`image_name`] writes them.
    pub images: Arc<BTreeSet<String>>,
}

impl Offer {
    /// Whether it holds an image; `false` for no image.
    #[must_use]
    pub fn holds(&self, image: &str) -> bool {
        !image.is_empty() && self.images.contains(image)
    }
}

/// One spelling of an image's name: with a tag, and without what stands for
/// the default registry. Empty for no image.
#[must_use]
pub fn image_name(reference: &str) -> String {
    let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let last = short.rsplit('/').next().unwrap_or(short);
    if short.is_empty() || last.contains([':', '@']) {
        short.to_owned()
    } else {
        format!("{short}:latest")
    }
}

/// A wolf and what is held of it.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its id.
    pub id: WolfId,
    /// A name for people.
    pub display_name: String,
    /// The only project that may use it; `None` for a shared one.
    pub project: Option<ProjectId>,
    /// Labels to select by.
    pub labels: BTreeMap<String, String>,
    /// Health.
    pub health: Health,
    /// Whether its tunnel is attached.
    pub tunnel_attached: bool,
    /// What it offers beside its goods.
    pub offer: Offer,
    /// Who holds what of it.
    pub ledger: Ledger,
}

impl Host {
    /// A shared host that is online and of which nothing is held.
    #[must_use]
    pub fn new(id: WolfId, capacity: Capacity) -> Self {
        Self {
            display_name: id.to_string(),
            id,
            project: None,
            labels: BTreeMap::new(),
            health: Health::Online,
            tunnel_attached: true,
            offer: Offer::default(),
            ledger: Ledger::new(capacity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::image_name;

    #[test]
    fn an_image_has_one_name() {
        for (reference, name) in [
            ("debian", "debian:latest"),
            ("docker.io/library/debian:12", "debian:12"),
            ("docker.io/wolfpack/base", "wolfpack/base:latest"),
            ("registry:5000/a", "registry:5000/a:latest"),
            ("registry:5000/a:b", "registry:5000/a:b"),
            ("a@sha256:0", "a@sha256:0"),
            ("", ""),
        ] {
            assert_eq!(image_name(reference), name, "{reference}");
        }
    }
}

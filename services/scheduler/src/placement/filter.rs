//! The filters, in their one order: tenancy, health and tunnel, exclusion,
//! labels, disk pressure, Docker, mounts, goods, devices, encoders. Each refusal
//! has a reason.

use std::collections::{BTreeMap, BTreeSet};

use wolfpack_types::capacity::{Demand, Grant, Shortage};
use wolfpack_types::{DockerMode, ProjectId, WolfId, mount_path};

use super::host::{Health, Host};

/// For whom wolves are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenant {
    /// A project: shared wolves and its own. Others do not exist for it.
    Project(ProjectId),
    /// One of our services that asks about the fleet: every wolf.
    Fleet,
}

impl Tenant {
    /// Whether the tenant may know of the wolf and use it.
    #[must_use]
    pub fn sees(&self, host: &Host) -> bool {
        match (self, &host.project) {
            (Self::Fleet, _) | (_, None) => true,
            (Self::Project(project), Some(owner)) => project == owner,
        }
    }

    /// Whether the wolf is the tenant's alone. For the fleet: whether it is
    /// anybody's alone.
    #[must_use]
    pub fn owns(&self, host: &Host) -> bool {
        match (self, &host.project) {
            (_, None) => false,
            (Self::Fleet, Some(_)) => true,
            (Self::Project(project), Some(owner)) => project == owner,
        }
    }
}

/// How to choose among wolves that fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Best fit.
    #[default]
    Pack,
    /// Least loaded.
    Spread,
}

/// A sandbox that looks for a wolf.
#[derive(Debug, Clone)]
pub struct Order {
    /// For whom.
    pub tenant: Tenant,
    /// What it takes.
    pub demand: Demand,
    /// Labels the wolf must have.
    pub selector: BTreeMap<String, String>,
    /// How to choose.
    pub strategy: Strategy,
    /// Wolves not to choose.
    pub excluded: BTreeSet<WolfId>,
    /// What it needs of Docker.
    pub docker: DockerMode,
    /// Folders of the wolf that it mounts.
    pub mounts: Vec<String>,
    /// Its image, as [`super::image_name`] writes it; empty for any.
    pub image: String,
}

/// Why a wolf that the tenant sees does not take an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// Not online.
    NotOnline(Health),
    /// Its tunnel is not attached.
    TunnelDetached,
    /// The order excludes it.
    Excluded,
    /// A label is absent or has another value.
    LabelsDiffer {
        /// The first label that differs.
        key: &'a str,
        /// The value that is wanted.
        wanted: &'a str,
        /// The value it has.
        found: Option<&'a str>,
    },
    /// It takes nothing new for want of disk.
    DiskPressure(&'a str),
    /// It serves others too, or only others, and docker mode SHARED would give
    /// it away.
    NotOwn,
    /// It serves others too, or only others, who could mount this folder as
    /// well.
    MountNotOwn(&'a str),
    /// Its engine does not give this.
    DockerModeAbsent(DockerMode),
    /// It does not let this folder be mounted.
    MountForbidden(&'a str),
    /// A good is short.
    Short(Shortage),
}

impl Refusal<'_> {
    /// The name of the blocker on the wire.
    #[must_use]
    pub fn blocker(&self) -> &'static str {
        match self {
            Self::NotOnline(_) => "WOLF_NOT_ONLINE",
            Self::TunnelDetached => "TUNNEL_DETACHED",
            Self::Excluded => "WOLF_EXCLUDED",
            Self::LabelsDiffer { .. } => "LABELS_DIFFER",
            Self::DiskPressure(_) => "DISK_PRESSURE",
            Self::NotOwn | Self::MountNotOwn(_) => "WOLF_NOT_OWN",
            Self::DockerModeAbsent(_) => "DOCKER_MODE_ABSENT",
            Self::MountForbidden(_) => "MOUNT_FORBIDDEN",
            Self::Short(shortage) => shortage.good.blocker(),
        }
    }
}

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotOnline(health) => write!(f, "the wolf is {}", health.as_str()),
            Self::TunnelDetached => f.write_str("the wolf's tunnel is not attached"),
            Self::Excluded => f.write_str("the wolf refused this sandbox before"),
            Self::LabelsDiffer { key, wanted, found: Some(found) } => {
                write!(f, "label {key} is {found}, wanted {wanted}")
            }
            Self::LabelsDiffer { key, wanted, found: None } => {
                write!(f, "label {key} is absent, wanted {wanted}")
            }
            Self::DiskPressure(why) => write!(f, "the wolf takes nothing new: {why}"),
            Self::NotOwn => f.write_str(
                "docker mode shared gives the wolf away, so it must be one of the project's own",
            ),
            Self::MountNotOwn(source) => write!(
                f,
                "other projects could mount {source} as well, so the wolf must be one of the project's own"
            ),
            Self::DockerModeAbsent(mode) => {
                write!(f, "the wolf's engine does not give docker mode {mode}")
            }
            Self::MountForbidden(source) => {
                write!(f, "{source} is not below a folder that the wolf lets sandboxes mount")
            }
            Self::Short(shortage) => shortage.fmt(f),
        }
    }
}

/// Whether a host that the tenant sees takes the order, and with which devices.
/// Tenancy is the caller's first step, because a host that the tenant does not
/// see gets no verdict at all.
pub(super) fn check<'a>(host: &'a Host, order: &'a Order) -> Result<Grant, Refusal<'a>> {
    // A wolf that is suspect only because its tunnel is away is told apart from
    // one whose heartbeat is late: the remedy differs.
    if !host.tunnel_attached && matches!(host.health, Health::Online | Health::Suspect) {
        return Err(Refusal::TunnelDetached);
    }
    if host.health != Health::Online {
        return Err(Refusal::NotOnline(host.health));
    }
    if order.excluded.contains(&host.id) {
        return Err(Refusal::Excluded);
    }
    for (key, wanted) in &order.selector {
        let found = host.labels.get(key).map(String::as_str);
        if found != Some(wanted.as_str()) {
            return Err(Refusal::LabelsDiffer { key, wanted, found });
        }
    }
    if !host.offer.disk_pressure.is_empty() {
        return Err(Refusal::DiskPressure(&host.offer.disk_pressure));
    }
    if order.docker == DockerMode::Shared && !order.tenant.owns(host) {
        return Err(Refusal::NotOwn);
    }
    if order.docker != DockerMode::None && !host.offer.docker_modes.contains(&order.docker) {
        return Err(Refusal::DockerModeAbsent(order.docker));
    }
    if let Some(source) = mount_path::first_forbidden(&order.mounts, &host.offer.mount_paths) {
        return Err(Refusal::MountForbidden(source));
    }
    // Through a folder of the wolf tenants would meet.
    if let Some(source) = order.mounts.first()
        && !host.offer.mounts_every_project
        && !order.tenant.owns(host)
    {
        return Err(Refusal::MountNotOwn(source));
    }
    host.ledger.fit(&order.demand).map_err(Refusal::Short)
}

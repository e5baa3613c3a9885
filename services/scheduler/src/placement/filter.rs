//! The filters, in their one order: tenancy, health and tunnel, exclusion,
//! labels, goods, devices. Each refusal has a reason.

use std::collections::{BTreeMap, BTreeSet};

use wolfpack_types::capacity::{Demand, Grant, Shortage};
use wolfpack_types::{ProjectId, WolfId};

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
    host.ledger.fit(&order.demand).map_err(Refusal::Short)
}

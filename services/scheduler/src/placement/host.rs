//! A wolf as placement sees it.

use std::collections::BTreeMap;

use wolfpack_types::capacity::{Capacity, Ledger};
use wolfpack_types::{ProjectId, WolfId};

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
            ledger: Ledger::new(capacity),
        }
    }
}

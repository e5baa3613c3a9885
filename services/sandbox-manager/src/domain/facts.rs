//! What is seen of a sandbox outside its row, at one moment.

use crate::domain::boot::Exit;

/// The wolf a sandbox was placed on, as the registry sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WolfFact {
    /// Not known now; treated as if it could be reached.
    #[default]
    Unknown,
    /// It may be reached: online, suspect or degraded.
    Present,
    /// Its heartbeats stopped; what runs there may still run.
    Offline,
    /// It left the fleet for good.
    Gone,
}

/// The container of this boot, as its wolf's engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ContainerFact {
    /// Not known now.
    #[default]
    Unknown,
    /// The wolf listed its containers after this boot began, and it was not
    /// among them.
    Absent,
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended by itself.
    Exited(Exit),
}

/// The agent inside the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentFact {
    /// Not asked, not reached, or not ready yet.
    #[default]
    NotReady,
    /// It answered for this boot that the sandbox is ready for use.
    Ready,
}

/// All that is seen at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The wolf.
    pub wolf: WolfFact,
    /// The container.
    pub container: ContainerFact,
    /// The agent inside.
    pub agent: AgentFact,
    /// The scheduler says that the reservation of this boot has ended.
    pub reservation_ended: bool,
    /// The time allowed for the present state is over.
    pub overdue: bool,
    /// The most placements that are tried before giving up.
    pub placements_allowed: u32,
}

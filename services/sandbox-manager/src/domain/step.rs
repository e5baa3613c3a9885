//! What to do next for a sandbox.

use wolfpack_types::SandboxState;

use crate::domain::boot::{Failure, GiveUp, ReleaseAs};

/// The next step. Marks only change the row; the others act on the world and
/// must be safe to repeat, since a crash may come between the act and the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Mark: look for a wolf from now on.
    BeginScheduling,
    /// Ask the scheduler for a wolf.
    Place,
    /// Have the wolf admit the reservation and make the container.
    CreateOnWolf,
    /// Bind the reservation that the wolf admitted.
    Confirm,
    /// Wait for the agent inside to answer that it is ready.
    AwaitAgent,
    /// Mark: ready for use.
    MarkRunning,
    /// Mark: its wolf is away.
    MarkLost,
    /// Mark: its wolf is back; go on from this state.
    Recover(SandboxState),
    /// Mark: give this placement up and look for a wolf again.
    Abandon(GiveUp),
    /// Remove the container from the wolf, after keeping its last output.
    Remove,
    /// Mark: the wolf cannot be asked to remove the container any more.
    ForgetContainer,
    /// Give the goods back.
    Release(ReleaseAs),
    /// Void the tokens of the boot.
    Revoke,
    /// Mark: nothing is left of it.
    MarkDeleted,
    /// Mark: it ended or cannot start.
    Fail(Failure),
    /// Nothing can be done until something changes.
    Wait,
    /// Nothing is to be done.
    Settled,
}

impl Step {
    /// Its name for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::BeginScheduling => "begin_scheduling",
            Self::Place => "place",
            Self::CreateOnWolf => "create_on_wolf",
            Self::Confirm => "confirm",
            Self::AwaitAgent => "await_agent",
            Self::MarkRunning => "mark_running",
            Self::MarkLost => "mark_lost",
            Self::Recover(_) => "recover",
            Self::Abandon(_) => "abandon",
            Self::Remove => "remove",
            Self::ForgetContainer => "forget_container",
            Self::Release(_) => "release",
            Self::Revoke => "revoke",
            Self::MarkDeleted => "mark_deleted",
            Self::Fail(_) => "fail",
            Self::Wait => "wait",
            Self::Settled => "settled",
        }
    }

    /// Whether there is nothing to do now.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Wait | Self::Settled)
    }
}

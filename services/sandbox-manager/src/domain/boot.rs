//! One boot of a sandbox: what it holds, how it ends and how it is given up.

use chrono::{DateTime, Utc};
use wolfpack_types::{ExecutionId, Reason, ReservationId, WolfId};

/// How a reservation is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleaseAs {
    /// No longer needed.
    Released,
    /// The wolf refused it.
    Refused,
    /// Its wolf is away or gone.
    Lost,
}

impl ReleaseAs {
    /// Its name in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }

    /// The outcome of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Released, Self::Refused, Self::Lost].into_iter().find(|it| it.as_str() == name)
    }
}

/// How a placement is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GiveUp {
    /// How its reservation is given back.
    pub release: ReleaseAs,
    /// Whether its wolf is not to be chosen again for this sandbox.
    pub exclude: bool,
}

impl GiveUp {
    /// The wolf refused it, and would again.
    pub const REFUSED: Self = Self { release: ReleaseAs::Refused, exclude: true };
    /// The wolf did not answer in time; another one may.
    pub const SILENT: Self = Self { release: ReleaseAs::Released, exclude: true };
    /// Its reservation was of no use any more; the wolf is not to blame.
    pub const EXPIRED: Self = Self { release: ReleaseAs::Released, exclude: false };
    /// The wolf is away; the scheduler knows.
    pub const AWAY: Self = Self { release: ReleaseAs::Lost, exclude: false };
}

/// How a container ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code of its main process, if the engine knows it.
    pub code: Option<i32>,
    /// The kernel ended it for lack of memory.
    pub out_of_memory: bool,
    /// It ended while its wolf, or the wolf's engine, was restarted.
    pub restarted: bool,
    /// Why its wolf ended it, when it did.
    pub ended_for: Option<Reason>,
}

/// Why a sandbox failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// From the error table.
    pub reason: Reason,
    /// In words.
    pub message: String,
    /// Exit code of its main process, when that ended.
    pub exit_code: Option<i32>,
}

impl Failure {
    /// A failure that is not the end of a process.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), exit_code: None }
    }
}

/// What a boot may still hold outside the row. Each is set before it can come
/// to be and cleared only when it is known to be gone, so a crash leaks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holds {
    /// A container on the wolf.
    pub container: bool,
    /// Goods at the scheduler.
    pub reservation: bool,
    /// Valid tokens.
    pub tokens: bool,
}

impl Holds {
    /// Whether anything may be left.
    #[must_use]
    pub fn any(self) -> bool {
        self.container || self.reservation || self.tokens
    }
}

/// One placement of the sandbox, from reservation to removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Where.
    pub wolf: WolfId,
    /// Names this boot in tokens and on the container.
    pub execution: ExecutionId,
    /// Its goods.
    pub reservation: ReservationId,
    /// When the scheduler answered.
    pub placed_at: DateTime<Utc>,
    /// The wolf admitted it and the scheduler bound it: it does not expire.
    pub confirmed: bool,
    /// Its container was started.
    pub started: bool,
    /// It was RUNNING.
    pub ran: bool,
    /// What it may still hold.
    pub holds: Holds,
    /// Given up in favour of another placement; how to release it.
    pub abandoned: Option<ReleaseAs>,
}

//! The one writer: a task that owns the book. It decides in memory, writes a
//! batch, and answers only after the commit; while a batch is being written
//! the next one gathers, so batches grow with the load by themselves.

mod actor;
mod batch;
mod handle;

use std::sync::Arc;

use tokio::sync::oneshot;
use wolfpack_types::{Fault, ProjectId, ReservationId, ReservationState, SandboxId};

use crate::domain::{Record, WolfFacts};
use crate::placement::{Host, Order};

pub(crate) use actor::not_leader;
pub use actor::{Limits, Writer};
pub use handle::WriterHandle;

/// The most rows and commands of one batch.
pub const BATCH: usize = 512;

/// A sandbox that looks for a wolf.
#[derive(Debug, Clone)]
pub struct Placement {
    /// What fits.
    pub order: Order,
    /// Owner.
    pub project: ProjectId,
    /// For whom.
    pub sandbox: SandboxId,
    /// Unique in the project.
    pub request_id: String,
    /// Hash of the body.
    pub body_hash: [u8; 32],
}

/// Something that happened to the fleet.
#[derive(Debug, Clone)]
pub enum FleetChange {
    /// This is the whole fleet.
    Replaced(Vec<WolfFacts>),
    /// A wolf is there or changed.
    Upserted(Box<WolfFacts>),
    /// A wolf is gone.
    Removed(wolfpack_types::WolfId),
}

type Reply = oneshot::Sender<Result<Record, Fault>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Choose a wolf.
    Place(Box<Placement>, Reply),
    /// Bind a reservation.
    Confirm(ReservationId, Reply),
    /// End a reservation.
    Release(ReservationId, ReservationState, Reply),
    /// Hear of the fleet.
    Fleet(FleetChange),
}

/// What readers see: the fleet after the last commit.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The leadership it belongs to; `None` while this process does not lead,
    /// and what is held is not known then.
    pub epoch: Option<i64>,
    /// The wolves by id.
    pub hosts: Arc<Vec<Arc<Host>>>,
}

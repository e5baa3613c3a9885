//! How handlers reach the writer.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use wolfpack_types::{Fault, Reason, ReservationId, ReservationState};

use super::{Command, Placement, Reply, View};
use crate::domain::Record;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) view: Arc<ArcSwap<View>>,
}

impl WriterHandle {
    /// Chooses a wolf; answers after the reservation is durable. A caller that
    /// goes away leaves a reservation that expires by itself.
    ///
    /// # Errors
    /// `NO_WOLF_FITS`, `REQUEST_ID_REUSED`, `SCHEDULER_NOT_LEADER`,
    /// `DEPENDENCY_UNAVAILABLE`, `OVERLOADED`.
    pub async fn place(&self, placement: Placement) -> Result<Record, Fault> {
        self.ask(|reply| Command::Place(Box::new(placement), reply)).await
    }

    /// Binds a reservation.
    ///
    /// # Errors
    /// `RESERVATION_NOT_FOUND`, `RESERVATION_NOT_LIVE` and those of
    /// [`Self::place`] that are not about the shape.
    pub async fn confirm(&self, id: ReservationId) -> Result<Record, Fault> {
        self.ask(|reply| Command::Confirm(id, reply)).await
    }

    /// Ends a reservation; one that has ended stays as it ended.
    ///
    /// # Errors
    /// `RESERVATION_NOT_FOUND` and those of [`Self::place`] that are not about
    /// the shape.
    pub async fn release(
        &self,
        id: ReservationId,
        outcome: ReservationState,
    ) -> Result<Record, Fault> {
        self.ask(|reply| Command::Release(id, outcome, reply)).await
    }

    /// The fleet after the last commit.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<Record, Fault> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Fault::new(Reason::Overloaded, "too many requests wait for a decision; try again")
                    .retry_in(Duration::from_millis(200))
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> Fault {
    Fault::new(Reason::ServerStopping, "this scheduler is stopping; try again")
        .retry_in(Duration::from_secs(1))
}

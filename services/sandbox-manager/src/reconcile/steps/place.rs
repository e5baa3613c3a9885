//! Asking the scheduler for a wolf, and binding what the wolf admitted.

use wolfpack_proto::scheduler::v1::{
    ConfirmReservationRequest, PlaceRequest, ReleaseReservationRequest, Reservation,
    ReservationState,
};
use wolfpack_rpc::error::from_status;
use wolfpack_types::{ExecutionId, Fault, Reason, ReservationId, WolfId};

use crate::domain::{Failure, place_request_id, shape_of};
use crate::reconcile::Reconciler;
use crate::reconcile::driver::Next;
use crate::reconcile::session::Session;
use crate::reconcile::trouble::Trouble;

/// The most wolves a request can exclude.
const EXCLUDED: usize = 64;

impl Reconciler {
    /// Asks for a wolf. The request id is the same after a crash, so the answer
    /// is the reservation that was made before it.
    pub(in crate::reconcile) async fn place(&self, session: &mut Session) -> Result<Next, Trouble> {
        let row = &session.row;
        let refused = &row.record.refused_by;
        let request = PlaceRequest {
            request_id: place_request_id(&row.id, row.record.attempt),
            sandbox: row.id.name(),
            project: row.project.name(),
            shape: Some(shape_of(&row.asked.spec)),
            excluded_wolves: refused.iter().rev().take(EXCLUDED).map(WolfId::name).collect(),
        };
        match self.peers.scheduler().place(request).await {
            Ok(response) => {
                let reservation = response.into_inner().reservation;
                let reservation =
                    reservation.ok_or_else(|| Self::invalid_answer("the scheduler's placement"))?;
                self.placed(session, reservation).await
            }
            Err(status) => self.not_placed(session, from_status(&status)).await,
        }
    }

    async fn placed(
        &self,
        session: &mut Session,
        reservation: Reservation,
    ) -> Result<Next, Trouble> {
        if !matches!(reservation.state(), ReservationState::Reserved | ReservationState::Bound) {
            // It was made before a crash and has ended since.
            session.row.record.placement_stale();
            return self.save(session).await;
        }
        let wolf = WolfId::from_name(&reservation.wolf).map_err(Fault::from)?;
        let id = ReservationId::from_name(&reservation.name).map_err(Fault::from)?;
        let now = session.now();
        session.row.record.placed(wolf, id.clone(), ExecutionId::new(), now);
        session.row.goods = Some(reservation);
        session.new_boot();
        let attempt = session.record().attempt;
        let saved = self.save(session).await;
        if matches!(saved, Err(Trouble::Changed)) && !self.may_be_used(session, &id, attempt).await
        {
            // The row went another way, most likely it is being deleted. What
            // is not bound expires by itself; this only makes it sooner.
            let request = ReleaseReservationRequest { name: id.name(), outcome: 0 };
            if let Err(error) = self.peers.scheduler().release_reservation(request).await {
                tracing::debug!(%error, "a reservation that is not needed expires by itself");
            }
        }
        saved
    }

    /// Whether the row, as it is by now, uses a reservation or may come to: the
    /// next owner of the row gets the same one for the same attempt.
    async fn may_be_used(&self, session: &Session, id: &ReservationId, attempt: u32) -> bool {
        match self.sandboxes.get(session.id()).await {
            Ok(Some(row)) => row.record.may_use(id, attempt),
            Ok(None) => false,
            Err(error) => {
                tracing::debug!(sandbox = %session.id(), %error, "the row cannot be read again");
                true
            }
        }
    }

    async fn not_placed(&self, session: &mut Session, fault: Fault) -> Result<Next, Trouble> {
        let record = &mut session.row.record;
        match fault.reason {
            // Those that might take it never will, and the others cannot.
            Reason::NoWolfFits if let Some(reason) = record.final_refusal() => {
                let failure = Failure::new(reason, record.message.clone());
                self.fail(session, failure).await
            }
            Reason::NoWolfFits => {
                if record.no_wolf_yet(&fault.message) {
                    self.save(session).await?;
                }
                Ok(Next::After(self.config.place_again))
            }
            Reason::ShapeInvalid | Reason::RequestInvalid => {
                let failure = Failure::new(Reason::ShapeInvalid, fault.message);
                self.fail(session, failure).await
            }
            // The same placement was asked for otherwise: by another version.
            Reason::RequestIdReused => {
                record.placement_stale();
                self.save(session).await
            }
            _ => Err(fault.into()),
        }
    }

    /// Binds the reservation that the wolf admitted.
    pub(in crate::reconcile) async fn confirm(
        &self,
        session: &mut Session,
    ) -> Result<Next, Trouble> {
        match self.bind(session).await {
            Ok(true) => {
                session.row.record.confirmed();
                self.save(session).await
            }
            Ok(false) => Ok(Next::Again),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Answers whether the reservation is bound; when it never can be, the
    /// session notes that.
    pub(in crate::reconcile) async fn bind(&self, session: &mut Session) -> Result<bool, Fault> {
        let Some(boot) = session.row.record.boot.as_ref() else { return Ok(false) };
        let request = ConfirmReservationRequest { name: boot.reservation.name() };
        match self.peers.scheduler().confirm_reservation(request).await {
            Ok(answer) => {
                // The wolf is shown it as it is now: BOUND, and without an end.
                if let Some(bound) = answer.into_inner().reservation {
                    session.row.goods = Some(bound);
                }
                Ok(true)
            }
            Err(status) => {
                let fault = from_status(&status);
                if matches!(fault.reason, Reason::ReservationNotLive | Reason::ReservationNotFound)
                {
                    session.reservation_ended = true;
                    return Ok(false);
                }
                Err(fault)
            }
        }
    }
}

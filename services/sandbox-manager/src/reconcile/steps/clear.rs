//! Ends: failing, and clearing away what a boot held.

use std::time::Duration;

use wolfpack_proto::agent::v1::RemoveSandboxRequest;
use wolfpack_proto::registry::v1::RevokeSandboxTokensRequest;
use wolfpack_proto::scheduler::v1::{ReleaseReservationRequest, ReservationState};
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason, SandboxState};

use crate::domain::{Failure, ReleaseAs, WolfFact};
use crate::reach::Route;
use crate::reconcile::Reconciler;
use crate::reconcile::driver::Next;
use crate::reconcile::session::Session;
use crate::reconcile::trouble::Trouble;

/// How long a wolf may take to end a container and remove all it had.
const REMOVAL: Duration = Duration::from_secs(60);

impl Reconciler {
    /// Marks it FAILED, with its last output where there is one.
    pub(in crate::reconcile) async fn fail(
        &self,
        session: &mut Session,
        failure: Failure,
    ) -> Result<Next, Trouble> {
        self.keep_logs(session).await;
        tracing::info!(
            sandbox = %session.id(), reason = %failure.reason, message = failure.message,
            "the sandbox failed"
        );
        let now = session.now();
        session.row.record.failed(failure, now)?;
        self.save(session).await
    }

    async fn keep_logs(&self, session: &mut Session) {
        let record = session.record();
        let Some(boot) = record.boot.as_ref() else { return };
        let there = boot.started && boot.holds.container && boot.abandoned.is_none();
        let reachable = self.fleet.wolves.glance(&boot.wolf) != WolfFact::Offline;
        if there && reachable && record.last_logs.is_empty() {
            session.row.record.last_logs = self.last_logs(&boot.wolf, session.id()).await;
        }
    }

    /// Removes the container from its wolf.
    pub(in crate::reconcile) async fn remove(
        &self,
        session: &mut Session,
    ) -> Result<Next, Trouble> {
        self.keep_logs(session).await;
        let Some(boot) = session.record().boot.as_ref() else {
            return Err(Self::invalid_answer("the row of a sandbox to remove"));
        };
        let request = RemoveSandboxRequest {
            sandbox: session.id().name(),
            execution_id: boot.execution.to_string(),
            owner_epoch: session.epoch(),
        };
        let mut wolf = self.peers.runtime_stream(&boot.wolf);
        let answer = tokio::time::timeout(REMOVAL, wolf.remove_sandbox(request)).await;
        let fault = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(from_status(&status)),
            Err(_) => {
                Some(Fault::new(Reason::DeadlineExceeded, "the wolf did not remove it in time"))
            }
        };
        match fault {
            None => {}
            Some(fault) if Session::is_fenced(fault.reason) => {
                return self.fenced(session, fault).await;
            }
            Some(fault) => return Err(fault.into()),
        }
        session.row.record.container_removed();
        session.save_later();
        if let Some(route) = Route::of(&session.row) {
            self.reach.forget_all(&route);
        }
        Ok(Next::Again)
    }

    /// Gives the goods back.
    pub(in crate::reconcile) async fn release(
        &self,
        session: &mut Session,
        how: ReleaseAs,
    ) -> Result<Next, Trouble> {
        let Some(boot) = session.record().boot.as_ref() else {
            return Err(Self::invalid_answer("the row of a sandbox to release"));
        };
        let outcome = match how {
            ReleaseAs::Released => ReservationState::Released,
            ReleaseAs::Refused => ReservationState::Refused,
            ReleaseAs::Lost => ReservationState::Lost,
        };
        let request =
            ReleaseReservationRequest { name: boot.reservation.name(), outcome: outcome.into() };
        match self.peers.scheduler().release_reservation(request).await {
            Ok(_) => {}
            // There is nothing to give back.
            Err(status) if from_status(&status).reason == Reason::ReservationNotFound => {}
            Err(status) => return Err(status.into()),
        }
        session.row.record.released();
        session.save_later();
        Ok(Next::Again)
    }

    /// Voids the tokens: of this boot, or of all boots when there will be no other. By
    /// that the broker knows that nobody need wait for the sandbox any more.
    pub(in crate::reconcile) async fn revoke(
        &self,
        session: &mut Session,
    ) -> Result<Next, Trouble> {
        let Some(boot) = session.record().boot.as_ref() else {
            return Err(Self::invalid_answer("the row of a sandbox to revoke"));
        };
        let all = matches!(session.record().state, SandboxState::Deleting | SandboxState::Failed);
        let request = RevokeSandboxTokensRequest {
            sandbox: session.id().name(),
            execution_id: if all { String::new() } else { boot.execution.to_string() },
        };
        self.peers.identity().revoke_sandbox_tokens(request).await?;
        session.row.record.revoked();
        session.save_later();
        Ok(Next::Again)
    }
}

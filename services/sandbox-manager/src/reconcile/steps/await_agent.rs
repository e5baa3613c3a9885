//! Waiting for the agent inside to say that the sandbox is ready for use.

use std::time::Duration;

use tokio::sync::Notify;
use wolfpack_proto::agent::v1::GetStatusRequest;
use wolfpack_types::SandboxState;

use crate::domain::{ContainerFact, WolfFact};
use crate::fleet::Sighting;
use crate::reach::{Path, Route};
use crate::reconcile::driver::Next;
use crate::reconcile::session::Session;
use crate::reconcile::trouble::Trouble;
use crate::reconcile::{Reconciler, observe};

/// An agent that is not ready is asked again after this, growing to the most.
const ASK_AGAIN: Duration = Duration::from_millis(20);
const ASK_AGAIN_MOST: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

impl Reconciler {
    /// Waits until the agent answers that it is ready, the time is over, or
    /// something else about the sandbox changed. It is asked over its own
    /// tunnel as soon as that attaches, and through its wolf after a grace.
    pub(in crate::reconcile) async fn await_agent(
        &self,
        session: &mut Session,
        poke: &Notify,
    ) -> Result<Next, Trouble> {
        let Some(route) = Route::of(&session.row) else {
            return Err(Self::invalid_answer("the row of a starting sandbox"));
        };
        let left = observe::left(&session.row, &self.config, session.now());
        let left = left.and_then(|it| it.to_std().ok()).unwrap_or_default();
        let ready = async {
            tokio::select! {
                () = self.ready_over(&route, Path::Sandbox) => {}
                () = async {
                    tokio::time::sleep(self.config.tunnel_grace).await;
                    self.ready_over(&route, Path::Wolf).await;
                } => {}
            }
        };
        tokio::pin!(ready);
        let over = tokio::time::sleep(left);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut ready => {
                    session.agent_ready = true;
                    return Ok(Next::Again);
                }
                () = &mut over => return Ok(Next::Again),
                () = poke.notified() => {
                    if !self.still_starting(session, &route).await? {
                        return Err(Trouble::Changed);
                    }
                }
            }
        }
    }

    /// Asks over one tunnel until the answer is yes.
    async fn ready_over(&self, route: &Route, path: Path) {
        let mut changes = self.fleet.tunnels.changes();
        let mut pause = ASK_AGAIN;
        loop {
            let detached = path == Path::Sandbox
                && self.fleet.tunnels.attached(&route.sandbox, &route.execution) == Some(false);
            if detached {
                // Only a change can help; the sender lives as long as we do.
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            }
            let mut agent = self.reach.agent(route, path, ANSWER);
            match tokio::time::timeout(ANSWER, agent.get_status(GetStatusRequest {})).await {
                Ok(Ok(status)) => {
                    let status = status.into_inner();
                    if status.ready && status.execution_id == route.execution.as_str() {
                        return;
                    }
                    tracing::debug!(
                        sandbox = %route.sandbox, message = status.message, "the agent is not ready"
                    );
                }
                Ok(Err(error)) => {
                    tracing::debug!(sandbox = %route.sandbox, ?path, %error, "no agent answers");
                }
                Err(_) => self.reach.forget(route, path),
            }
            // Not sooner when a tunnel changes: in a fleet that starts many it is
            // most likely another one's, and each would be asked each time.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK_AGAIN_MOST);
        }
    }

    /// Whether a wake leaves nothing to do but wait on.
    async fn still_starting(&self, session: &Session, route: &Route) -> Result<bool, Trouble> {
        let fleet = &self.fleet;
        let fine = matches!(
            fleet.containers.glance(&route.wolf, &route.sandbox, &route.execution),
            Sighting::Unknown
                | Sighting::There(
                    ContainerFact::Running | ContainerFact::Created | ContainerFact::Unknown
                )
        );
        let here = fleet.wolves.glance(&route.wolf) != WolfFact::Offline;
        let current = session.is_current().await?;
        Ok(fine && here && current && session.record().state == SandboxState::Starting)
    }
}

//! Having a wolf admit the reservation, fetch the image and start the
//! container.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Streaming;
use wolfpack_proto::agent::v1::create_sandbox_response::Step;
use wolfpack_proto::agent::v1::{
    ContainerStatus, CreateSandboxRequest, CreateSandboxResponse, Pulling,
};
use wolfpack_proto::registry::v1::MintSandboxTokenRequest;
use wolfpack_proto::sandbox::v1::PullStatus;
use wolfpack_proto::scheduler::v1::Reservation;
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason, SandboxState};

use crate::domain::{Failure, GiveUp, WolfFact};
use crate::reconcile::driver::Next;
use crate::reconcile::session::Session;
use crate::reconcile::trouble::Trouble;
use crate::reconcile::{Reconciler, observe};

/// Progress of a pull is written at most this often.
const PROGRESS: Duration = Duration::from_secs(1);
/// The most layers that are told.
const LAYERS: usize = 128;

impl Reconciler {
    /// Creates the container. A repeated call goes on where the first one is,
    /// so this is the step after a crash, too.
    pub(in crate::reconcile) async fn create_on_wolf(
        &self,
        session: &mut Session,
        poke: &Notify,
    ) -> Result<Next, Trouble> {
        let left = observe::left(&session.row, &self.config, session.now());
        let until = Instant::now() + left.and_then(|it| it.to_std().ok()).unwrap_or_default();
        let opened = tokio::select! {
            opened = self.open_create(session) => opened,
            () = tokio::time::sleep_until(until) => return Ok(Next::Again),
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(fault) => return self.not_created(session, fault).await,
        };
        let mut progress = Instant::now();
        loop {
            // Admission changes the state, and with it the time that is left.
            let left = observe::left(&session.row, &self.config, session.now());
            let left = left.and_then(|it| it.to_std().ok()).unwrap_or_default();
            let message = tokio::select! {
                message = stream.message() => message,
                () = tokio::time::sleep(left) => return Ok(Next::Again),
                () = poke.notified() => {
                    if self.goes_on(session).await? {
                        continue;
                    }
                    return Err(Trouble::Changed);
                }
            };
            match message {
                Ok(Some(CreateSandboxResponse { step: Some(step) })) => match step {
                    Step::Admitted(_) => self.admitted(session).await?,
                    Step::Pulling(pulling) => {
                        self.admitted_before(session).await?;
                        if progress <= Instant::now() {
                            progress = Instant::now() + PROGRESS;
                            self.pulling(session, &pulling).await?;
                        }
                    }
                    Step::Started(status) => return self.created(session, status).await,
                },
                Ok(Some(CreateSandboxResponse { step: None })) => {}
                Ok(None) => {
                    let fault =
                        Fault::new(Reason::ConnectionReset, "the wolf ended the call early");
                    return self.not_created(session, fault).await;
                }
                Err(status) => return self.not_created(session, from_status(&status)).await,
            }
        }
    }

    async fn open_create(
        &self,
        session: &Session,
    ) -> Result<Streaming<CreateSandboxResponse>, Fault> {
        let row = &session.row;
        let Some(boot) = row.record.boot.as_ref() else {
            return Err(Fault::internal("a sandbox is created without a placement"));
        };
        let (sandbox, project) = (row.id.name(), row.project.name());
        let minting = MintSandboxTokenRequest {
            sandbox: sandbox.clone(),
            project: project.clone(),
            execution_id: boot.execution.to_string(),
        };
        // The registry answers soon; only for that a turn is taken. It is never
        // closed.
        let turn = self.starts.acquire().await.ok();
        let minted = self.peers.identity().mint_sandbox_token(minting).await;
        drop(turn);
        let token = minted.map_err(|status| from_status(&status))?.into_inner().token;
        let request = CreateSandboxRequest {
            sandbox,
            project,
            execution_id: boot.execution.to_string(),
            owner_epoch: session.epoch(),
            spec: Some(row.asked.spec.clone()),
            reservation: row.goods.clone(),
            sandbox_token: token,
        };
        let stream = self
            .peers
            .runtime_stream(&boot.wolf)
            .create_sandbox(request)
            .await
            .map_err(|status| from_status(&status))?;
        Ok(stream.into_inner())
    }

    /// Whether a wake during the call leaves it as it was.
    async fn goes_on(&self, session: &Session) -> Result<bool, Trouble> {
        let away = session
            .record()
            .boot
            .as_ref()
            .is_some_and(|boot| self.fleet.wolves.glance(&boot.wolf) == WolfFact::Offline);
        Ok(!away && session.is_current().await?)
    }

    /// The wolf holds the goods: the scheduler binds them there and then.
    async fn admitted(&self, session: &mut Session) -> Result<(), Trouble> {
        let confirmed = match self.bind(session).await {
            Ok(confirmed) => confirmed,
            Err(fault) => {
                // It is bound by its own step, while the wolf goes on.
                tracing::info!(sandbox = %session.id(), %fault, "the reservation is not bound yet");
                false
            }
        };
        let bound = session.record().boot.as_ref().is_some_and(|boot| boot.confirmed);
        let news = confirmed && !bound;
        if news || session.record().state == SandboxState::Scheduling {
            let now = session.now();
            session.row.record.admitted(confirmed, now)?;
            self.save(session).await?;
        }
        // Another placement is needed: that is decided anew.
        if session.reservation_ended { Err(Trouble::Changed) } else { Ok(()) }
    }

    /// A call that goes on may leave out what it said before.
    async fn admitted_before(&self, session: &mut Session) -> Result<(), Trouble> {
        if session.record().state == SandboxState::Scheduling {
            self.admitted(session).await?;
        }
        Ok(())
    }

    async fn pulling(&self, session: &mut Session, pulling: &Pulling) -> Result<(), Trouble> {
        let message = match pulling.total_bytes {
            0 => pulling.message.clone(),
            total => {
                let percent = pulling.current_bytes.min(total) * 100 / total;
                format!("{} ({percent}%)", pulling.message)
            }
        };
        let pull = PullStatus {
            current_bytes: pulling.current_bytes,
            total_bytes: pulling.total_bytes,
            bytes_per_second: pulling.bytes_per_second,
            layers: pulling.layers.iter().take(LAYERS).cloned().collect(),
        };
        let record = &mut session.row.record;
        if record.message != message || record.pull.as_ref() != Some(&pull) {
            record.pulling(&message, pull);
            self.save(session).await?;
        }
        Ok(())
    }

    async fn created(
        &self,
        session: &mut Session,
        status: ContainerStatus,
    ) -> Result<Next, Trouble> {
        self.admitted_before(session).await?;
        if let Some(boot) = session.record().boot.as_ref() {
            self.fleet.containers.note(&boot.wolf, status);
        }
        let now = session.now();
        session.row.record.started(now)?;
        self.save(session).await
    }

    async fn not_created(&self, session: &mut Session, fault: Fault) -> Result<Next, Trouble> {
        match fault.reason {
            Reason::ReservationRefused => {
                let now = session.now();
                let message = format!("the wolf refused it: {}", fault.message);
                // After a long crash it is only too late, which any wolf would say.
                let late = is_past(session.row.goods.as_ref(), now) || is_outdated(&fault);
                let how = if late { GiveUp::EXPIRED } else { GiveUp::REFUSED };
                session.row.record.abandon(how, &message, now)?;
                self.save(session).await
            }
            Reason::DockerModeUnsupported | Reason::MountForbidden => {
                let now = session.now();
                let message = format!("the wolf does not take it: {}", fault.message);
                session.row.record.refused(fault.reason, &message, now)?;
                self.save(session).await
            }
            Reason::ImageNotFound | Reason::ImagePullFailed => {
                self.fail(session, Failure::new(fault.reason, fault.message)).await
            }
            Reason::OwnerFenced => self.fenced(session, fault).await,
            // The wolf answered, and not that it is busy: it may not work twice.
            Reason::EngineFailed | Reason::Internal | Reason::RequestInvalid => {
                session.create_failures += 1;
                if session.create_failures >= self.config.engine_failures {
                    return self.fail(session, Failure::new(fault.reason, fault.message)).await;
                }
                Err(fault.into())
            }
            _ => Err(fault.into()),
        }
    }

    /// The wolf knows a newer owner. When the row does not, the wolf remembers
    /// more than the database: own the row anew, in a later epoch.
    pub(in crate::reconcile) async fn fenced(
        &self,
        session: &mut Session,
        fault: Fault,
    ) -> Result<Next, Trouble> {
        if !session.is_current().await? {
            return Err(Trouble::Changed);
        }
        session.close().await?;
        Err(fault.into())
    }
}

/// Whether the wolf refused the reservation, and not what it is for.
fn is_outdated(fault: &Fault) -> bool {
    let kind = fault.metadata.get("refusal").map(String::as_str);
    matches!(kind, Some("expired" | "epoch_stale" | "not_live"))
}

/// Whether the time of a reservation is over.
fn is_past(goods: Option<&Reservation>, now: DateTime<Utc>) -> bool {
    let until = goods.and_then(|goods| goods.expire_time.as_ref());
    until.is_some_and(|until| until.seconds <= now.timestamp())
}

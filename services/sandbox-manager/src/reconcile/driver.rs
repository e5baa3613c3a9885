//! One task per sandbox that needs work: observe, decide, do, until there is
//! nothing to do.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tracing::Instrument as _;
use wolfpack_runtime::{Supervisor, trace_context};
use wolfpack_types::{Fault, SandboxId, SandboxState};

use crate::config::ReconcileConfig;
use crate::domain::{Step, decide};
use crate::feed::Feed;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::reach::Reach;
use crate::reconcile::session::Session;
use crate::reconcile::trouble::Trouble;
use crate::reconcile::turns::Turn;
use crate::reconcile::{ChangedWolves, LongTurns, Queue, observe};
use crate::store::Sandboxes;

/// First pause after a step that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A row that others write this often in a row is left alone for a moment.
const CHANGES_IN_A_ROW: u32 = 16;

/// What comes after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Look again at once.
    Again,
    /// Look again after this, or when woken.
    After(Duration),
    /// Nothing to do until woken.
    Idle,
}

/// Brings sandboxes to where they should be.
pub(crate) struct Reconciler {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) peers: Peers,
    pub(crate) fleet: Fleet,
    pub(crate) reach: Reach,
    pub(crate) queue: Queue,
    pub(crate) feed: Feed,
    pub(crate) metrics: Metrics,
    pub(crate) config: ReconcileConfig,
    /// Names this replica as an owner of rows.
    pub(crate) holder: String,
    pub(crate) supervisor: Supervisor,
    pub(crate) starts: Semaphore,
    pub(crate) ends: Semaphore,
    pub(crate) long: LongTurns,
    /// Every row is to be looked at now.
    pub(crate) all: Notify,
    pub(crate) changed: ChangedWolves,
}

/// Leave to do a step, until it is dropped.
enum Permit<'a> {
    Short(#[expect(dead_code, reason = "held")] Option<SemaphorePermit<'a>>),
    Long(#[expect(dead_code, reason = "held")] Option<Turn>),
}

/// Frees a sandbox's place in the queue when its task ends by a panic.
struct Occupied<'a> {
    queue: &'a Queue,
    id: &'a SandboxId,
    armed: bool,
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        if self.armed {
            while self.queue.finish(self.id) {}
        }
    }
}

impl Reconciler {
    /// Begins a task for a sandbox that has none.
    pub(super) fn look_at(self: &Arc<Self>, id: SandboxId, poke: Arc<Notify>) {
        let this = Arc::clone(self);
        self.supervisor.spawn("manager.reconcile", async move { this.drive(&id, &poke).await });
    }

    async fn drive(&self, id: &SandboxId, poke: &Notify) {
        let token = self.supervisor.token();
        let mut occupied = Occupied { queue: &self.queue, id, armed: true };
        let mut session = None;
        let mut failures = 0;
        loop {
            let pause = tokio::select! {
                () = token.cancelled() => return,
                pause = self.work(id, &mut session, &mut failures, poke) => pause,
            };
            match pause {
                None => {
                    if !self.queue.finish(id) {
                        occupied.armed = false;
                        return;
                    }
                }
                Some(pause) => tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                    () = poke.notified() => {}
                },
            }
        }
    }

    /// Works until there is nothing to do; answers how long to pause, `None`
    /// for until woken.
    async fn work(
        &self,
        id: &SandboxId,
        kept: &mut Option<Session>,
        failures: &mut u32,
        poke: &Notify,
    ) -> Option<Duration> {
        self.queue.reading(id);
        let session = match self.open(id, kept).await {
            Ok(Some(session)) => session,
            Ok(None) => return None,
            Err(trouble) => return Some(self.pause_after(id, &trouble, failures)),
        };
        let mut changes = 0;
        loop {
            let trouble = match self.step(session, poke).await {
                Ok(Next::Again) => {
                    *failures = 0;
                    changes = 0;
                    continue;
                }
                Ok(Next::After(pause)) => return Some(pause),
                Ok(Next::Idle) => match session.close().await {
                    Ok(()) => return None,
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            changes += 1;
            if matches!(trouble, Trouble::Failed(_)) || changes > CHANGES_IN_A_ROW {
                return Some(self.pause_after(id, &trouble, failures));
            }
            match session.reload().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(trouble) => return Some(self.pause_after(id, &trouble, failures)),
            }
        }
    }

    async fn open<'a>(
        &self,
        id: &SandboxId,
        kept: &'a mut Option<Session>,
    ) -> Result<Option<&'a mut Session>, Trouble> {
        if let Some(session) = kept {
            return Ok(session.reload().await?.then_some(session));
        }
        let Some(row) = self.sandboxes.get(id).await? else { return Ok(None) };
        let (sandboxes, queue) = (self.sandboxes.clone(), self.queue.clone());
        Ok(Some(kept.insert(Session::new(
            row,
            sandboxes,
            queue,
            self.holder.clone(),
            self.config.lease,
        ))))
    }

    fn pause_after(&self, id: &SandboxId, trouble: &Trouble, failures: &mut u32) -> Duration {
        if let Trouble::Failed(fault) = trouble {
            let cause = fault.source.as_deref().map(ToString::to_string);
            tracing::info!(sandbox = %id, %fault, cause, "a step did not work; trying again");
        }
        let bound = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10)).min(self.config.backoff);
        *failures = failures.saturating_add(1);
        rand::rng().random_range(bound / 2..=bound)
    }

    /// One step.
    async fn step(&self, session: &mut Session, poke: &Notify) -> Result<Next, Trouble> {
        let step = self.decide(session).await;
        if step.is_idle() || session.is_anothers() {
            return Ok(Next::Idle);
        }
        // First the permit: a row that is owned already would be held in vain,
        // and perhaps no longer, once it is this one's turn.
        let Some(_permit) = self.permit(session, &step, poke).await? else {
            return Ok(Next::Again);
        };
        if !session.own().await? {
            return Ok(Next::Idle);
        }
        let span = tracing::info_span!(
            "sandbox.step",
            otel.name = format!("reconcile {}", step.name()),
            sandbox = %session.id(),
            step = step.name(),
        );
        if let Some(parent) = &session.row.traceparent {
            trace_context::set_parent(&span, parent);
        }
        let before = session.record().state;
        let kept = session.keep();
        let done = tokio::select! {
            trouble = kept => Err(trouble),
            done = self.execute(session, &step, poke).instrument(span) => done,
        };
        self.metrics.stepped(
            step.name(),
            match &done {
                Ok(_) => "ok",
                Err(Trouble::Changed) => "changed",
                Err(Trouble::Failed(_)) => "failed",
            },
        );
        self.measure(session, before);
        done
    }

    /// What to do now, by all that can be seen.
    async fn decide(&self, session: &Session) -> Step {
        let base = observe::base(
            &session.row,
            &self.config,
            session.now(),
            session.agent_ready,
            session.reservation_ended,
        );
        let facts = observe::look(&self.fleet, &session.row, base).await;
        decide(session.record(), &facts)
    }

    /// Waits until it is the turn of a step. What waits for a wolf, an image or
    /// an agent has turns of its own, or a few that hang would keep all others
    /// waiting. `None` when another step is due meanwhile.
    async fn permit(
        &self,
        session: &Session,
        step: &Step,
        poke: &Notify,
    ) -> Result<Option<Permit<'_>>, Trouble> {
        let turns = match step {
            Step::CreateOnWolf => &self.long.creates,
            Step::AwaitAgent => &self.long.agents,
            Step::Remove => &self.long.removals,
            _ => return Ok(Some(Permit::Short(self.short(session.record().state).await))),
        };
        let Some(boot) = session.record().boot.as_ref() else {
            return Err(Self::invalid_answer("the row of a sandbox on a wolf"));
        };
        let turn = turns.take(&boot.wolf);
        let over = async {
            let left = observe::left(&session.row, &self.config, session.now());
            match left.and_then(|left| left.to_std().ok()).filter(|left| !left.is_zero()) {
                Some(left) => tokio::time::sleep(left).await,
                // Without a limit, or with one that changed nothing when it was over.
                None => std::future::pending().await,
            }
        };
        tokio::pin!(turn, over);
        loop {
            tokio::select! {
                biased;
                turn = &mut turn => return Ok(Some(Permit::Long(turn))),
                () = &mut over => return Ok(None),
                // It may be deleted by now. If not, its place in the line stays.
                () = poke.notified() => {
                    if !session.is_current().await? {
                        return Err(Trouble::Changed);
                    }
                    if self.decide(session).await != *step {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// A turn for a step that ends soon. The semaphores are never closed.
    async fn short(&self, state: SandboxState) -> Option<SemaphorePermit<'_>> {
        let starting = matches!(
            state,
            SandboxState::Pending
                | SandboxState::Scheduling
                | SandboxState::Pulling
                | SandboxState::Starting
        );
        if starting { self.starts.acquire().await.ok() } else { self.ends.acquire().await.ok() }
    }

    /// Counts a sandbox that came up or failed for the first time.
    fn measure(&self, session: &Session, before: SandboxState) {
        let state = session.record().state;
        let ended_start = match state {
            SandboxState::Running => before == SandboxState::Starting,
            SandboxState::Failed => {
                !matches!(before, SandboxState::Failed | SandboxState::Running | SandboxState::Lost)
            }
            _ => false,
        };
        if ended_start {
            let took = (session.now() - session.row.created_at).to_std().unwrap_or_default();
            self.metrics.started(took, state.as_str());
        }
    }

    async fn execute(
        &self,
        session: &mut Session,
        step: &Step,
        poke: &Notify,
    ) -> Result<Next, Trouble> {
        let now = session.now();
        let record = &mut session.row.record;
        match step {
            Step::Place => return self.place(session).await,
            Step::CreateOnWolf => return self.create_on_wolf(session, poke).await,
            Step::Confirm => return self.confirm(session).await,
            Step::AwaitAgent => return self.await_agent(session, poke).await,
            Step::Remove => return self.remove(session).await,
            Step::Release(how) => return self.release(session, *how).await,
            Step::Revoke => return self.revoke(session).await,
            Step::Fail(failure) => return self.fail(session, failure.clone()).await,
            Step::BeginScheduling => record.begin_scheduling(now)?,
            Step::MarkRunning => record.running(now)?,
            Step::MarkLost => record.lost(now)?,
            Step::Recover(into) => record.recovered(*into, now)?,
            Step::Abandon(how) => {
                record.abandon(*how, "its wolf did not take it; looking again", now)?;
            }
            Step::ForgetContainer => record.container_removed(),
            Step::MarkDeleted => record.deleted(now)?,
            Step::Wait | Step::Settled => return Ok(Next::Idle),
        }
        self.save(session).await
    }

    /// Saves, and shows watchers at once what was saved.
    pub(super) async fn save(&self, session: &mut Session) -> Result<Next, Trouble> {
        session.save().await?;
        self.feed.poke();
        Ok(Next::Again)
    }

    /// A fault of a step that cannot be repeated with hope.
    pub(super) fn invalid_answer(what: &str) -> Trouble {
        Trouble::Failed(Fault::internal(format!("{what} is not as the contract says")))
    }
}

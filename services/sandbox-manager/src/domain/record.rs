//! What the row of a sandbox says about its life, and how it may change.

use chrono::{DateTime, Utc};
use wolfpack_proto::sandbox::v1::PullStatus;
use wolfpack_types::{ExecutionId, Reason, ReservationId, SandboxState, WolfId};

use super::boot::{Boot, Failure, GiveUp, Holds};

/// How many transitions a record keeps.
const TRANSITIONS_KEPT: usize = 32;

/// The state table does not allow this change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox may not go from {from} to {to}")]
pub struct IllegalTransition {
    /// Where it is.
    pub from: SandboxState,
    /// Where it may not go.
    pub to: SandboxState,
}

/// One step of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state it came into.
    pub state: SandboxState,
    /// When.
    pub time: DateTime<Utc>,
}

/// The life of one sandbox as its row tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it is in its life.
    pub state: SandboxState,
    /// Why, from the error table; `None` while all is well.
    pub reason: Option<Reason>,
    /// Why, in words.
    pub message: String,
    /// Its steps, oldest first, the last 32.
    pub transitions: Vec<Transition>,
    /// Placements that ended so far; names the request of the next one.
    pub attempt: u32,
    /// Wolves that are not chosen as long as there are others: they refused it
    /// or did not answer.
    pub refused_by: Vec<WolfId>,
    /// The present placement, or the last one.
    pub boot: Option<Boot>,
    /// Exit code of its main process.
    pub exit_code: Option<i32>,
    /// Last output of its main process.
    pub last_logs: String,
    /// How far its image is; only while PULLING.
    pub pull: Option<PullStatus>,
}

impl Record {
    /// A sandbox that was just accepted.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            state: SandboxState::Pending,
            reason: None,
            message: String::new(),
            transitions: vec![Transition { state: SandboxState::Pending, time: now }],
            attempt: 0,
            refused_by: Vec::new(),
            boot: None,
            exit_code: None,
            last_logs: String::new(),
            pull: None,
        }
    }

    /// When it came into its state.
    #[must_use]
    pub fn since(&self) -> Option<DateTime<Utc>> {
        self.transitions.last().map(|last| last.time)
    }

    /// The boot that is under way: not given up.
    #[must_use]
    pub fn live_boot(&self) -> Option<&Boot> {
        self.boot.as_ref().filter(|boot| boot.abandoned.is_none())
    }

    /// Whether a reservation that was made for this attempt is, or may still
    /// become, that of the present placement.
    #[must_use]
    pub fn may_use(&self, reservation: &ReservationId, attempt: u32) -> bool {
        if self.boot.as_ref().is_some_and(|boot| boot.reservation == *reservation) {
            return true;
        }
        let looks = matches!(self.state, SandboxState::Pending | SandboxState::Scheduling);
        looks && self.attempt == attempt && self.live_boot().is_none()
    }

    /// Whether the row may become DELETED: nothing is held outside it.
    #[must_use]
    pub fn holds_nothing(&self) -> bool {
        self.boot.as_ref().is_none_or(|boot| !boot.holds.any())
    }

    fn become_state(
        &mut self,
        next: SandboxState,
        now: DateTime<Utc>,
    ) -> Result<(), IllegalTransition> {
        if !self.state.may_become(next) {
            return Err(IllegalTransition { from: self.state, to: next });
        }
        self.state = next;
        self.pull = None;
        self.transitions.push(Transition { state: next, time: now });
        if self.transitions.len() > TRANSITIONS_KEPT {
            let surplus = self.transitions.len() - TRANSITIONS_KEPT;
            self.transitions.drain(..surplus);
        }
        Ok(())
    }

    /// Looks for a wolf from now on.
    ///
    /// # Errors
    /// When the table does not allow it from the present state; so for all of
    /// these.
    pub fn begin_scheduling(&mut self, now: DateTime<Utc>) -> Result<(), IllegalTransition> {
        self.become_state(SandboxState::Scheduling, now)?;
        "looking for a wolf".clone_into(&mut self.message);
        Ok(())
    }

    /// No wolf has room now; `message` says why. Those that were passed over
    /// are asked again, too: what they lacked may be there now, and in a small
    /// fleet there is nobody else. Answers whether anything of that is news.
    pub fn no_wolf_yet(&mut self, message: &str) -> bool {
        let passed_over = std::mem::take(&mut self.refused_by).len();
        let message = match passed_over {
            0 => message.to_owned(),
            some => format!("{message}; {some} did not take it before and are asked again"),
        };
        let news = self.message != message || passed_over > 0;
        self.message = message;
        news
    }

    /// The scheduler's answer was not usable (the reservation had expired): ask
    /// anew under another request id.
    pub fn placement_stale(&mut self) {
        self.attempt = self.attempt.saturating_add(1);
    }

    /// The scheduler chose a wolf. From now on a container, goods and tokens
    /// may be there.
    pub fn placed(
        &mut self,
        wolf: WolfId,
        reservation: ReservationId,
        execution: ExecutionId,
        now: DateTime<Utc>,
    ) {
        self.message = format!("asking {} to admit it", wolf.name());
        self.boot = Some(Boot {
            wolf,
            execution,
            reservation,
            placed_at: now,
            confirmed: false,
            started: false,
            ran: false,
            holds: Holds { container: true, reservation: true, tokens: true },
            abandoned: None,
        });
    }

    /// The wolf admitted the reservation.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn admitted(
        &mut self,
        confirmed: bool,
        now: DateTime<Utc>,
    ) -> Result<(), IllegalTransition> {
        if self.state != SandboxState::Pulling {
            self.become_state(SandboxState::Pulling, now)?;
        }
        self.reason = None;
        "the wolf admitted it".clone_into(&mut self.message);
        if let Some(boot) = &mut self.boot {
            boot.confirmed |= confirmed;
        }
        Ok(())
    }

    /// The scheduler bound the reservation.
    pub fn confirmed(&mut self) {
        if let Some(boot) = &mut self.boot {
            boot.confirmed = true;
        }
    }

    /// The image is being fetched; it is so far.
    pub fn pulling(&mut self, message: &str, pull: PullStatus) {
        message.clone_into(&mut self.message);
        self.pull = Some(pull);
    }

    /// The container runs.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn started(&mut self, now: DateTime<Utc>) -> Result<(), IllegalTransition> {
        self.become_state(SandboxState::Starting, now)?;
        "waiting for the agent in the sandbox".clone_into(&mut self.message);
        if let Some(boot) = &mut self.boot {
            boot.started = true;
        }
        Ok(())
    }

    /// The agent inside is ready.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn running(&mut self, now: DateTime<Utc>) -> Result<(), IllegalTransition> {
        self.become_state(SandboxState::Running, now)?;
        self.reason = None;
        self.message.clear();
        if let Some(boot) = &mut self.boot {
            boot.started = true;
            boot.ran = true;
        }
        Ok(())
    }

    /// Its wolf is away.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn lost(&mut self, now: DateTime<Utc>) -> Result<(), IllegalTransition> {
        self.become_state(SandboxState::Lost, now)?;
        self.reason = Some(Reason::WolfAway);
        let wolf = self.boot.as_ref().map(|boot| boot.wolf.name()).unwrap_or_default();
        self.message = format!("{wolf} is away; the sandbox goes on when it is back with it");
        Ok(())
    }

    /// Its wolf is back with it.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn recovered(
        &mut self,
        into: SandboxState,
        now: DateTime<Utc>,
    ) -> Result<(), IllegalTransition> {
        match into {
            SandboxState::Running => self.running(now),
            SandboxState::Starting => {
                self.reason = None;
                self.started(now)
            }
            _ => {
                self.become_state(into, now)?;
                self.reason = None;
                "its wolf is back".clone_into(&mut self.message);
                Ok(())
            }
        }
    }

    /// Gives the present placement up: what it holds is cleared away, then a
    /// wolf is looked for again; another one, if this one is to be excluded.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn abandon(
        &mut self,
        give_up: GiveUp,
        message: &str,
        now: DateTime<Utc>,
    ) -> Result<(), IllegalTransition> {
        let admitted = self.state != SandboxState::Scheduling;
        if admitted {
            self.become_state(SandboxState::Scheduling, now)?;
        }
        message.clone_into(&mut self.message);
        self.attempt = self.attempt.saturating_add(1);
        if let Some(boot) = &mut self.boot {
            boot.abandoned = Some(give_up.release);
            // Before it was admitted nothing is known to be there, and the wolf
            // may not answer: what it made after all is an orphan to it.
            boot.holds.container &= admitted;
            if give_up.exclude && !self.refused_by.contains(&boot.wolf) {
                self.refused_by.push(boot.wolf.clone());
            }
        }
        Ok(())
    }

    /// The wolf never takes a sandbox like this: another one is looked for, and
    /// the reason is kept for when there is none.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn refused(
        &mut self,
        reason: Reason,
        message: &str,
        now: DateTime<Utc>,
    ) -> Result<(), IllegalTransition> {
        self.abandon(GiveUp::REFUSED, message, now)?;
        self.reason = Some(reason);
        Ok(())
    }

    /// Why a wolf said that it never takes a sandbox like this, when no other
    /// has taken it since.
    #[must_use]
    pub fn final_refusal(&self) -> Option<Reason> {
        self.reason.filter(|_| self.state == SandboxState::Scheduling)
    }

    /// The container is gone from the wolf, or the wolf is.
    pub fn container_removed(&mut self) {
        if let Some(boot) = &mut self.boot {
            boot.holds.container = false;
        }
    }

    /// The goods were given back.
    pub fn released(&mut self) {
        if let Some(boot) = &mut self.boot {
            boot.holds.reservation = false;
        }
    }

    /// The tokens are void.
    pub fn revoked(&mut self) {
        if let Some(boot) = &mut self.boot {
            boot.holds.tokens = false;
        }
    }

    /// It ended or cannot start.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn failed(
        &mut self,
        failure: Failure,
        now: DateTime<Utc>,
    ) -> Result<(), IllegalTransition> {
        self.become_state(SandboxState::Failed, now)?;
        self.reason = Some(failure.reason);
        self.message = failure.message;
        self.exit_code = failure.exit_code.or(self.exit_code);
        Ok(())
    }

    /// A user wants it gone. Asking again changes nothing.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn delete(&mut self, now: DateTime<Utc>) -> Result<bool, IllegalTransition> {
        if matches!(self.state, SandboxState::Deleting | SandboxState::Deleted) {
            return Ok(false);
        }
        self.become_state(SandboxState::Deleting, now)?;
        Ok(true)
    }

    /// Nothing is left of it.
    ///
    /// # Errors
    /// As [`Record::begin_scheduling`].
    pub fn deleted(&mut self, now: DateTime<Utc>) -> Result<(), IllegalTransition> {
        self.become_state(SandboxState::Deleted, now)
    }
}

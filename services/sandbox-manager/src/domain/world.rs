//! A small world for the property tests: a scheduler, wolves, tokens and one
//! sandbox, where any step may fail or its note be lost in a crash.

use chrono::{DateTime, Utc};
use wolfpack_types::{ExecutionId, Reason, ReservationId, SandboxState, WolfId};

use super::*;

/// What chance does to one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Luck {
    /// It works.
    Fine,
    /// It fails before anything happened.
    Fails,
    /// It happens but its note is lost.
    CrashAfter,
    /// The other side says no.
    Refused,
}

/// What happens beside the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    Nothing,
    WolfOffline,
    WolfBack,
    WolfGone,
    ContainerExits,
    ContainerVanishes,
    ReservationExpires,
    AgentReady,
    Overdue,
    Delete,
}

#[derive(Debug, Clone)]
pub(super) struct Reservation {
    pub(super) id: ReservationId,
    pub(super) attempt: u32,
    pub(super) bound: bool,
    pub(super) live: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) wolf: WolfId,
    pub(super) execution: ExecutionId,
    pub(super) running: bool,
}

/// The world around one sandbox.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) record: Record,
    pub(super) wolf: WolfFact,
    pub(super) reservations: Vec<Reservation>,
    pub(super) containers: Vec<Container>,
    pub(super) valid_tokens: Vec<ExecutionId>,
    pub(super) agent_ready: bool,
    pub(super) overdue: bool,
    /// Whether the scheduler binds reservations.
    pub(super) binds: bool,
    last: SandboxState,
}

pub(super) fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            record: Record::new(now()),
            wolf: WolfFact::Present,
            reservations: Vec::new(),
            containers: Vec::new(),
            valid_tokens: Vec::new(),
            agent_ready: false,
            overdue: false,
            binds: true,
            last: SandboxState::Pending,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        let boot = self.record.boot.as_ref();
        let container = boot.map_or(ContainerFact::Unknown, |boot| {
            if matches!(self.wolf, WolfFact::Offline | WolfFact::Gone) {
                return ContainerFact::Unknown;
            }
            match self.containers.iter().find(|it| it.execution == boot.execution) {
                Some(it) if it.running => ContainerFact::Running,
                Some(_) => ContainerFact::Exited(Exit {
                    code: Some(1),
                    out_of_memory: false,
                    restarted: false,
                    ended_for: None,
                }),
                None => ContainerFact::Absent,
            }
        });
        let ended = boot.is_some_and(|boot| {
            self.reservations.iter().any(|it| it.id == boot.reservation && !it.live)
        });
        Facts {
            wolf: if boot.is_some() { self.wolf } else { WolfFact::Unknown },
            container,
            agent: if self.agent_ready { AgentFact::Ready } else { AgentFact::NotReady },
            reservation_ended: ended,
            overdue: self.overdue,
            placements_allowed: 4,
        }
    }

    pub(super) fn happen(&mut self, what: Happening) {
        match what {
            Happening::Nothing => {}
            Happening::WolfOffline if self.wolf != WolfFact::Gone => self.wolf = WolfFact::Offline,
            Happening::WolfBack if self.wolf != WolfFact::Gone => self.wolf = WolfFact::Present,
            Happening::WolfGone if self.record.live_boot().is_some() => {
                self.wolf = WolfFact::Gone;
                self.containers.clear();
            }
            Happening::WolfOffline | Happening::WolfBack | Happening::WolfGone => {}
            Happening::ContainerExits => {
                self.containers.iter_mut().for_each(|it| it.running = false);
            }
            Happening::ContainerVanishes => self.containers.clear(),
            Happening::ReservationExpires => {
                self.reservations.iter_mut().filter(|it| !it.bound).for_each(|it| it.live = false);
            }
            Happening::AgentReady => self.agent_ready = true,
            Happening::Overdue => self.overdue = true,
            Happening::Delete => {
                let before = self.record.state;
                let changed = self.record.delete(now()).unwrap();
                assert_eq!(changed, before != self.record.state);
                self.note();
            }
        }
    }

    fn note(&mut self) {
        if self.last != self.record.state {
            self.last = self.record.state;
            self.overdue = false;
        }
    }

    /// One turn of the reconciler. Answers whether it had something to do.
    pub(super) fn turn(&mut self, luck: Luck) -> bool {
        let step = decide(&self.record, &self.facts());
        let busy = !step.is_idle();
        let before = self.record.clone();
        self.execute(&step, luck);
        if luck == Luck::CrashAfter {
            self.record = before;
        }
        self.note();
        busy
    }

    fn reachable(&self) -> bool {
        !matches!(self.wolf, WolfFact::Offline | WolfFact::Gone)
    }

    fn execute(&mut self, step: &Step, luck: Luck) {
        let effect = !matches!(luck, Luck::Fails);
        match step {
            Step::BeginScheduling => self.record.begin_scheduling(now()).unwrap(),
            Step::MarkRunning => self.record.running(now()).unwrap(),
            Step::MarkLost => self.record.lost(now()).unwrap(),
            Step::Recover(into) => self.record.recovered(*into, now()).unwrap(),
            Step::Abandon(how) => self.record.abandon(*how, "given up", now()).unwrap(),
            Step::ForgetContainer => self.record.container_removed(),
            Step::MarkDeleted => self.record.deleted(now()).unwrap(),
            Step::Fail(failure) => self.record.failed(failure.clone(), now()).unwrap(),
            Step::Wait | Step::Settled => {}
            Step::Place if luck == Luck::Refused => drop(self.record.no_wolf_yet("no wolf fits")),
            Step::Place if effect => self.place(),
            Step::CreateOnWolf if self.reachable() && luck == Luck::Refused => {
                if self.record.state == SandboxState::Scheduling {
                    self.record.abandon(GiveUp::REFUSED, "refused", now()).unwrap();
                } else {
                    let failure = Failure::new(Reason::ImageNotFound, "no image");
                    self.record.failed(failure, now()).unwrap();
                }
            }
            Step::CreateOnWolf if self.reachable() && effect => self.create(),
            Step::Confirm if effect && self.binds => {
                let boot = self.record.boot.as_ref().unwrap();
                let held = self.reservations.iter_mut().find(|it| it.id == boot.reservation);
                if let Some(held) = held.filter(|it| it.live) {
                    held.bound = true;
                    self.record.confirmed();
                }
            }
            Step::AwaitAgent if effect => self.agent_ready = true,
            Step::Remove if self.reachable() && effect => {
                let execution = self.record.boot.as_ref().unwrap().execution.clone();
                self.containers.retain(|it| it.execution != execution);
                self.record.container_removed();
            }
            Step::Release(_) if effect => {
                let id = self.record.boot.as_ref().unwrap().reservation.clone();
                self.reservations
                    .iter_mut()
                    .filter(|it| it.id == id)
                    .for_each(|it| it.live = false);
                self.record.released();
            }
            Step::Revoke if effect => {
                let execution = self.record.boot.as_ref().unwrap().execution.clone();
                self.valid_tokens.retain(|it| *it != execution);
                self.record.revoked();
            }
            Step::Place
            | Step::CreateOnWolf
            | Step::Confirm
            | Step::AwaitAgent
            | Step::Remove
            | Step::Release(_)
            | Step::Revoke => {}
        }
    }

    fn place(&mut self) {
        let attempt = self.record.attempt;
        // A repeated request id finds the reservation it made before.
        let known = self.reservations.iter().find(|it| it.attempt == attempt).cloned();
        let reservation = known.unwrap_or_else(|| {
            let fresh = Reservation { id: ReservationId::new(), attempt, bound: false, live: true };
            self.reservations.push(fresh.clone());
            fresh
        });
        if reservation.live {
            self.wolf = WolfFact::Present;
            self.record.placed(WolfId::new(), reservation.id, ExecutionId::new(), now());
        } else {
            self.record.placement_stale();
        }
    }

    fn create(&mut self) {
        let boot = self.record.boot.clone().unwrap();
        if self.containers.iter().all(|it| it.execution != boot.execution) {
            self.valid_tokens.push(boot.execution.clone());
            self.containers.push(Container {
                wolf: boot.wolf,
                execution: boot.execution,
                running: true,
            });
        }
        let binds = self.binds;
        let bound =
            self.reservations.iter_mut().find(|it| binds && it.id == boot.reservation && it.live);
        let confirmed = bound.is_some();
        if let Some(held) = bound {
            held.bound = true;
        }
        self.record.admitted(confirmed, now()).unwrap();
        if confirmed {
            self.record.started(now()).unwrap();
        }
    }

    /// What the sweep of a wolf removes.
    pub(super) fn sweep(&mut self) {
        if !self.reachable() {
            return;
        }
        let claim = self.record.boot.as_ref().map(|boot| Claim {
            state: self.record.state,
            wolf: boot.wolf.clone(),
            execution: boot.execution.clone(),
            holds_container: boot.holds.container,
        });
        self.containers.retain(|it| !is_orphan(&it.wolf, it.execution.as_str(), claim.as_ref()));
    }
}

//! The last guard before a container is made. Pure: no clock, no disk, no
//! engine; the caller brings the time and keeps what must survive.
//!
//! The scheduler decides, the wolf checks: the same ledger counts the same
//! devices here, and what this guard refuses is final for this wolf.

mod epoch_file;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use wolfpack_types::capacity::{Capacity, Free, Ledger, Shortage};
use wolfpack_types::{
    ExecutionId, Fault, ProjectId, Reason, ReservationId, ReservationState, SandboxId, WolfId,
};

use crate::sandbox::{Goods, Identity};

pub use epoch_file::EpochFile;

/// Of how many removed sandboxes the last owner is remembered.
const REMEMBERED_OWNERS: usize = 4_096;

/// A request to hold goods for a boot of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The sandbox to start.
    pub sandbox: SandboxId,
    /// Its project.
    pub project: ProjectId,
    /// The boot.
    pub execution: ExecutionId,
    /// Epoch of the manager's owner that asks.
    pub owner_epoch: i64,
    /// What the scheduler reserved.
    pub reservation: Reserved,
}

/// A reservation as the scheduler made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// Its id.
    pub id: ReservationId,
    /// Where it is in its life.
    pub state: ReservationState,
    /// Whom it is for.
    pub sandbox: SandboxId,
    /// Whose it is.
    pub project: ProjectId,
    /// Where it is.
    pub wolf: WolfId,
    /// What it holds.
    pub goods: Goods,
    /// When it expires, while it can.
    pub expire_time: Option<SystemTime>,
    /// The scheduler's leadership epoch that made it.
    pub epoch: i64,
}

/// Why a claim is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A newer owner of the sandbox's row has spoken.
    #[error("owner epoch {seen} was seen, this call is of {given}: a newer owner took over")]
    OwnerFenced {
        /// The newest.
        seen: i64,
        /// The caller's.
        given: i64,
    },
    /// The reservation is of an older scheduler.
    #[error("scheduler epoch {seen} was seen, the reservation is of {given}: place it again")]
    EpochStale {
        /// The newest.
        seen: i64,
        /// The reservation's.
        given: i64,
    },
    /// It is over.
    #[error("the reservation is {0:?}: place it again")]
    NotLive(ReservationState),
    /// It is too late.
    #[error("the reservation expired {0:?} ago by this wolf's clock: place it again")]
    Expired(Duration),
    /// It has no end although it must.
    #[error("the reservation is reserved and has no expiry")]
    NoExpiry,
    /// It is of another wolf, sandbox or project.
    #[error("the reservation is of another {0}")]
    Mismatch(&'static str),
    /// The wolf lacks a good.
    #[error("{0}")]
    Short(Shortage),
}

impl Refusal {
    /// The fault a caller sees.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        let reason = match &self {
            Self::OwnerFenced { .. } => Reason::OwnerFenced,
            Self::EpochStale { .. }
            | Self::NotLive(_)
            | Self::Expired(_)
            | Self::NoExpiry
            | Self::Mismatch(_)
            | Self::Short(_) => Reason::ReservationRefused,
        };
        let fault = Fault::new(reason, self.to_string()).with("refusal", self.kind());
        match &self {
            Self::Short(shortage) => fault.with("blocker", shortage.good.blocker()),
            _ => fault,
        }
    }

    /// One word for metrics and programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OwnerFenced { .. } => "owner_fenced",
            Self::EpochStale { .. } => "epoch_stale",
            Self::NotLive(_) => "not_live",
            Self::Expired(_) => "expired",
            Self::NoExpiry => "no_expiry",
            Self::Mismatch(_) => "mismatch",
            Self::Short(_) => "short",
        }
    }
}

/// What a claim led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Who it is now.
    pub identity: Identity,
    /// What it holds.
    pub goods: Goods,
    /// Whether this very boot was admitted before.
    pub again: bool,
    /// The scheduler's epoch, when it is the newest that was ever seen: it
    /// must be kept before anything is done.
    pub new_epoch: Option<i64>,
}

#[derive(Debug, Clone)]
struct Held {
    identity: Identity,
    goods: Goods,
}

/// Who holds what of this wolf, and whom to believe.
#[derive(Debug)]
pub struct Admission {
    wolf: WolfId,
    ledger: Ledger<SandboxId>,
    held: BTreeMap<SandboxId, Held>,
    highest_epoch: i64,
    /// Owners of sandboxes that are no longer here, oldest first.
    former_owners: VecDeque<(SandboxId, i64)>,
}

impl Admission {
    /// A guard for a wolf of which nothing is held yet.
    #[must_use]
    pub fn new(wolf: WolfId, capacity: Capacity, highest_epoch: i64) -> Self {
        Self {
            wolf,
            ledger: Ledger::new(capacity),
            held: BTreeMap::new(),
            highest_epoch,
            former_owners: VecDeque::new(),
        }
    }

    /// Admits a claim, or says why not. A boot that is admitted stays so: the
    /// same claim again changes nothing but the owner. Another boot of a
    /// sandbox that is here takes the place of the one before.
    ///
    /// # Errors
    /// The first rule that the claim breaks; nothing changed.
    pub fn admit(&mut self, claim: &Claim, now: SystemTime) -> Result<Admitted, Refusal> {
        self.fence(&claim.sandbox, claim.owner_epoch)?;
        let reserved = &claim.reservation;
        if let Some(held) = self.held.get_mut(&claim.sandbox)
            && held.identity.execution == claim.execution
            && held.identity.reservation == reserved.id
        {
            held.identity.owner_epoch = claim.owner_epoch;
            let (identity, goods) = (held.identity.clone(), held.goods.clone());
            return Ok(Admitted { identity, goods, again: true, new_epoch: None });
        }
        self.check(claim, now)?;
        // A boot before this one gives its goods to it.
        let before = self.ledger.give_back(&claim.sandbox);
        if let Err(shortage) = self.ledger.try_hold(claim.sandbox.clone(), &reserved.goods.holding)
        {
            if let Some(before) = before {
                self.ledger.adopt(claim.sandbox.clone(), before);
            }
            return Err(Refusal::Short(shortage));
        }
        let identity = Identity {
            wolf: self.wolf.clone(),
            sandbox: claim.sandbox.clone(),
            project: claim.project.clone(),
            execution: claim.execution.clone(),
            reservation: reserved.id.clone(),
            owner_epoch: claim.owner_epoch,
        };
        let goods = reserved.goods.clone();
        self.hold(Held { identity: identity.clone(), goods: goods.clone() });
        let new_epoch = (reserved.epoch > self.highest_epoch).then_some(reserved.epoch);
        self.highest_epoch = self.highest_epoch.max(reserved.epoch);
        Ok(Admitted { identity, goods, again: false, new_epoch })
    }

    fn check(&self, claim: &Claim, now: SystemTime) -> Result<(), Refusal> {
        let reserved = &claim.reservation;
        for (same, what) in [
            (reserved.wolf == self.wolf, "wolf"),
            (reserved.sandbox == claim.sandbox, "sandbox"),
            (reserved.project == claim.project, "project"),
        ] {
            if !same {
                return Err(Refusal::Mismatch(what));
            }
        }
        if !reserved.state.is_live() {
            return Err(Refusal::NotLive(reserved.state));
        }
        // One that was confirmed is the sandbox's until it is released, whoever
        // leads the schedulers since then: this agent may have restarted while
        // it fetched the image, and is asked for the same boot again.
        if reserved.state == ReservationState::Reserved {
            if reserved.epoch < self.highest_epoch {
                return Err(Refusal::EpochStale {
                    seen: self.highest_epoch,
                    given: reserved.epoch,
                });
            }
            let expires = reserved.expire_time.ok_or(Refusal::NoExpiry)?;
            if let Ok(ago) = now.duration_since(expires) {
                return Err(Refusal::Expired(ago));
            }
        }
        Ok(())
    }

    /// Refuses an owner that a newer one has replaced, and remembers this one.
    ///
    /// # Errors
    /// `OwnerFenced` when a newer owner has spoken about the sandbox.
    pub fn fence(&mut self, sandbox: &SandboxId, owner_epoch: i64) -> Result<(), Refusal> {
        let seen = match self.held.get(sandbox) {
            Some(held) => Some(held.identity.owner_epoch),
            None => {
                self.former_owners.iter().find(|(id, _)| id == sandbox).map(|(_, epoch)| *epoch)
            }
        };
        match seen {
            Some(seen) if owner_epoch < seen => {
                Err(Refusal::OwnerFenced { seen, given: owner_epoch })
            }
            _ => {
                if let Some(held) = self.held.get_mut(sandbox) {
                    held.identity.owner_epoch = owner_epoch;
                }
                Ok(())
            }
        }
    }

    /// Takes note of a sandbox that is here in fact, whether it fits or not.
    pub fn adopt(&mut self, identity: Identity, goods: Goods) {
        self.ledger.adopt(identity.sandbox.clone(), goods.holding.clone());
        self.hold(Held { identity, goods });
    }

    fn hold(&mut self, held: Held) {
        let sandbox = held.identity.sandbox.clone();
        self.former_owners.retain(|(id, _)| *id != sandbox);
        self.held.insert(sandbox, held);
    }

    /// A sandbox is gone: its goods are free, its owner is remembered. With an
    /// execution, only that boot; another one keeps what it has.
    pub fn release(&mut self, sandbox: &SandboxId, execution: Option<&ExecutionId>) {
        let is_it = |held: &Held| execution.is_none_or(|boot| held.identity.execution == *boot);
        if !self.held.get(sandbox).is_some_and(is_it) {
            return;
        }
        if let Some(held) = self.held.remove(sandbox) {
            self.ledger.give_back(sandbox);
            self.former_owners.push_back((sandbox.clone(), held.identity.owner_epoch));
            if self.former_owners.len() > REMEMBERED_OWNERS {
                self.former_owners.pop_front();
            }
        }
    }

    /// The boot that holds goods for a sandbox.
    #[must_use]
    pub fn execution(&self, sandbox: &SandboxId) -> Option<&ExecutionId> {
        self.held.get(sandbox).map(|held| &held.identity.execution)
    }

    /// The sandboxes that hold goods.
    pub fn sandboxes(&self) -> impl Iterator<Item = &Identity> {
        self.held.values().map(|held| &held.identity)
    }

    /// What is free.
    #[must_use]
    pub fn free(&self) -> Free {
        self.ledger.free()
    }

    /// The wolf's capacity changed; what is held stays held.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.ledger.set_capacity(capacity);
    }
}

#[cfg(test)]
mod tests;

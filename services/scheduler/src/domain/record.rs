//! One reservation.

use chrono::{DateTime, Utc};
use wolfpack_types::capacity::{Demand, Grant, Holding};
use wolfpack_types::{ProjectId, ReservationId, ReservationState, SandboxId, WolfId};

/// One reservation, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: ReservationId,
    /// The request that made it; unique in the project.
    pub request_id: String,
    /// Hash of the request's body: the same id with another body is an error.
    pub body_hash: [u8; 32],
    /// Who owns the sandbox.
    pub project: ProjectId,
    /// For whom it holds.
    pub sandbox: SandboxId,
    /// Of which wolf.
    pub wolf: WolfId,
    /// Where it is in its life.
    pub state: ReservationState,
    /// What is held, with every default; `gpu` and `encoder` are always `None`
    /// here, what was chosen is in `grant`.
    pub demand: Demand,
    /// The devices and encoder sessions.
    pub grant: Grant,
    /// The leadership that made it.
    pub epoch: i64,
    /// When it was made, by the database's clock.
    pub create_time: DateTime<Utc>,
    /// When it expires; only while `Reserved`.
    pub expire_time: Option<DateTime<Utc>>,
    /// When it ended.
    pub end_time: Option<DateTime<Utc>>,
}

impl Record {
    /// What it holds of its wolf.
    #[must_use]
    pub fn holding(&self) -> Holding {
        Holding::of(&self.demand, self.grant.clone())
    }

    /// Whether it is over its time at `now`.
    #[must_use]
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.state == ReservationState::Reserved
            && self.expire_time.is_some_and(|expire| expire <= now)
    }

    /// The record in another state; `None` when that is not legal.
    #[must_use]
    pub fn becoming(&self, state: ReservationState, now: DateTime<Utc>) -> Option<Self> {
        self.state.may_become(state).then(|| Self {
            state,
            expire_time: None,
            end_time: (!state.is_live()).then_some(now),
            ..self.clone()
        })
    }
}

/// What a decision is stamped with.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// The leadership.
    pub epoch: i64,
    /// How long a reservation lives unconfirmed.
    pub ttl: chrono::TimeDelta,
}

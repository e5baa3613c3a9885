//! A sandbox's row as the rest of the service sees it, and back.

use chrono::{DateTime, Utc};
use prost::Message as _;
use sea_orm::ActiveValue::{NotSet, Set};
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::scheduler::v1::Reservation;
use wolfpack_types::{
    ExecutionId, ProjectId, Reason, ReservationId, SandboxId, SandboxState, WolfId,
};

use crate::domain::{Boot, Claim, Holds, Record, ReleaseAs, Transition};
use crate::store::entity::sandbox::{ActiveModel, Model};

/// A row holds what cannot be read; only damage or a newer version writes that.
#[derive(Debug, thiserror::Error)]
#[error("the row of sandbox {sandbox} cannot be read: {what}")]
pub(crate) struct DamagedRow {
    sandbox: String,
    what: &'static str,
}

/// What the user asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    /// A name for people; empty for none.
    pub(crate) display_name: String,
    /// Labels.
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    /// The spec, defaults filled in.
    pub(crate) spec: pb::SandboxSpec,
}

/// Who works on a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Owner {
    /// The replica; `None` before the first.
    pub(crate) holder: Option<String>,
    /// Grows with each change of owner.
    pub(crate) epoch: i64,
    /// Until when, in database time.
    pub(crate) until: DateTime<Utc>,
}

/// One sandbox.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sandbox {
    /// Its id.
    pub(crate) id: SandboxId,
    /// The project that owns it.
    pub(crate) project: ProjectId,
    /// users/{id} who asked.
    pub(crate) creator: String,
    /// What was asked for.
    pub(crate) asked: Asked,
    /// W3C trace context of the call that created it, or deletes it.
    pub(crate) traceparent: Option<String>,
    /// Its life.
    pub(crate) record: Record,
    /// The goods of the present boot, as the scheduler gave them.
    pub(crate) goods: Option<Reservation>,
    /// When it was asked for.
    pub(crate) created_at: DateTime<Utc>,
    /// When it changed last.
    pub(crate) updated_at: DateTime<Utc>,
    /// Grows with each write.
    pub(crate) version: i64,
    /// Order of the last write.
    pub(crate) revision: i64,
    /// Who works on it.
    pub(crate) owner: Owner,
}

impl Sandbox {
    /// The etag of this version.
    #[must_use]
    pub(crate) fn etag(&self) -> String {
        format!("v{}", self.version)
    }

    /// Whether nothing will happen to it any more: DELETED, or FAILED with
    /// nothing left to clear away.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        match self.record.state {
            SandboxState::Deleted => true,
            SandboxState::Failed => self.record.holds_nothing(),
            _ => false,
        }
    }

    /// What this row claims of containers; `None` before it was placed.
    #[must_use]
    pub(crate) fn claim(&self) -> Option<Claim> {
        self.record.boot.as_ref().map(|boot| Claim {
            state: self.record.state,
            wolf: boot.wolf.clone(),
            execution: boot.execution.clone(),
            holds_container: boot.holds.container,
        })
    }

    /// Reads a row.
    pub(super) fn from_row(row: Model) -> Result<Self, DamagedRow> {
        let damaged = |what| DamagedRow { sandbox: row.id.chars().take(80).collect(), what };
        let asked = pb::Sandbox::decode(row.asked.as_slice()).map_err(|_| damaged("asked"))?;
        let status = pb::SandboxStatus::decode(row.transitions.as_slice())
            .map_err(|_| damaged("transitions"))?;
        let transitions = status
            .transitions
            .iter()
            .map(transition_from)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| damaged("transitions"))?;
        let goods = row
            .goods
            .as_deref()
            .map(Reservation::decode)
            .transpose()
            .map_err(|_| damaged("goods"))?;
        let refused_by = row
            .refused_by
            .split(',')
            .filter(|id| !id.is_empty())
            .map(WolfId::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| damaged("refused_by"))?;
        let boot = boot_of(&row).map_err(&damaged)?;
        let reason = match row.reason.as_deref() {
            None => None,
            Some(name) => Some(Reason::parse(name).ok_or_else(|| damaged("reason"))?),
        };
        Ok(Self {
            id: SandboxId::parse(&row.id).map_err(|_| damaged("id"))?,
            project: ProjectId::parse(&row.project).map_err(|_| damaged("project"))?,
            record: Record {
                state: SandboxState::parse(&row.state).ok_or_else(|| damaged("state"))?,
                reason,
                message: row.message.clone(),
                transitions,
                attempt: u32::try_from(row.attempt).map_err(|_| damaged("attempt"))?,
                refused_by,
                boot,
                exit_code: row.exit_code,
                last_logs: row.last_logs.clone(),
                pull: status.pull,
            },
            created_at: time_of(row.created_at).ok_or_else(|| damaged("created_at"))?,
            updated_at: time_of(row.updated_at).ok_or_else(|| damaged("updated_at"))?,
            owner: Owner {
                until: time_of(row.owner_until).ok_or_else(|| damaged("owner_until"))?,
                holder: row.owner,
                epoch: row.owner_epoch,
            },
            goods,
            creator: row.creator,
            asked: Asked {
                display_name: asked.display_name,
                labels: asked.labels,
                spec: asked.spec.unwrap_or_default(),
            },
            traceparent: row.traceparent,
            version: row.version,
            revision: row.revision,
        })
    }

    /// The whole row, to insert.
    pub(super) fn to_row(&self) -> ActiveModel {
        let asked = pb::Sandbox {
            display_name: self.asked.display_name.clone(),
            labels: self.asked.labels.clone(),
            spec: Some(self.asked.spec.clone()),
            ..pb::Sandbox::default()
        };
        ActiveModel {
            id: Set(self.id.to_string()),
            project: Set(self.project.to_string()),
            creator: Set(self.creator.clone()),
            display_name: Set(self.asked.display_name.clone()),
            asked: Set(asked.encode_to_vec()),
            created_at: Set(self.created_at.timestamp_micros()),
            owner: Set(self.owner.holder.clone()),
            owner_epoch: Set(self.owner.epoch),
            ..self.to_changes()
        }
    }

    /// The columns that change in the course of a life.
    pub(super) fn to_changes(&self) -> ActiveModel {
        let record = &self.record;
        let boot = record.boot.as_ref();
        let holds = boot.map(|boot| boot.holds).unwrap_or_default();
        let status = pb::SandboxStatus {
            transitions: record.transitions.iter().map(transition_to).collect(),
            pull: record.pull.clone(),
            ..pb::SandboxStatus::default()
        };
        let refused: Vec<&str> = record.refused_by.iter().map(WolfId::as_str).collect();
        ActiveModel {
            id: NotSet,
            project: NotSet,
            creator: NotSet,
            display_name: NotSet,
            asked: NotSet,
            created_at: NotSet,
            owner: NotSet,
            owner_epoch: NotSet,
            traceparent: Set(self.traceparent.clone()),
            state: Set(record.state.as_str().to_owned()),
            reason: Set(record.reason.map(|reason| reason.as_str().to_owned())),
            message: Set(storable(&record.message)),
            transitions: Set(status.encode_to_vec()),
            attempt: Set(i64::from(record.attempt)),
            refused_by: Set(refused.join(",")),
            exit_code: Set(record.exit_code),
            last_logs: Set(storable(&record.last_logs)),
            wolf: Set(boot.map(|boot| boot.wolf.to_string())),
            execution: Set(boot.map(|boot| boot.execution.to_string())),
            reservation: Set(boot.map(|boot| boot.reservation.to_string())),
            goods: Set(self.goods.as_ref().map(prost::Message::encode_to_vec)),
            placed_at: Set(boot.map(|boot| boot.placed_at.timestamp_micros())),
            confirmed: Set(boot.is_some_and(|boot| boot.confirmed)),
            started: Set(boot.is_some_and(|boot| boot.started)),
            ran: Set(boot.is_some_and(|boot| boot.ran)),
            holds_container: Set(holds.container),
            holds_reservation: Set(holds.reservation),
            holds_tokens: Set(holds.tokens),
            abandoned_as: Set(boot
                .and_then(|boot| boot.abandoned)
                .map(|how| how.as_str().to_owned())),
            updated_at: Set(self.updated_at.timestamp_micros()),
            version: Set(self.version),
            revision: Set(self.revision),
            owner_until: Set(self.owner.until.timestamp_micros()),
        }
    }
}

/// Text that came from outside: PostgreSQL refuses NUL in text.
fn storable(text: &str) -> String {
    text.replace('\0', "")
}

fn boot_of(row: &Model) -> Result<Option<Boot>, &'static str> {
    let (Some(wolf), Some(execution), Some(reservation)) =
        (&row.wolf, &row.execution, &row.reservation)
    else {
        return Ok(None);
    };
    let abandoned = match row.abandoned_as.as_deref() {
        None => None,
        Some(name) => Some(ReleaseAs::parse(name).ok_or("abandoned_as")?),
    };
    Ok(Some(Boot {
        wolf: WolfId::parse(wolf).map_err(|_| "wolf")?,
        execution: ExecutionId::parse(execution).map_err(|_| "execution")?,
        reservation: ReservationId::parse(reservation).map_err(|_| "reservation")?,
        placed_at: row.placed_at.and_then(time_of).ok_or("placed_at")?,
        confirmed: row.confirmed,
        started: row.started,
        ran: row.ran,
        holds: Holds {
            container: row.holds_container,
            reservation: row.holds_reservation,
            tokens: row.holds_tokens,
        },
        abandoned,
    }))
}

pub(super) fn time_of(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

/// A time as protobuf says it.
#[must_use]
pub(crate) fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(999_999_999),
    }
}

/// A state as the API says it.
#[must_use]
pub(crate) fn api_state(state: SandboxState) -> pb::SandboxState {
    match state {
        SandboxState::Pending => pb::SandboxState::Pending,
        SandboxState::Scheduling => pb::SandboxState::Scheduling,
        SandboxState::Pulling => pb::SandboxState::Pulling,
        SandboxState::Starting => pb::SandboxState::Starting,
        SandboxState::Running => pb::SandboxState::Running,
        SandboxState::Deleting => pb::SandboxState::Deleting,
        SandboxState::Deleted => pb::SandboxState::Deleted,
        SandboxState::Failed => pb::SandboxState::Failed,
        SandboxState::Lost => pb::SandboxState::Lost,
    }
}

fn transition_to(transition: &Transition) -> pb::StateTransition {
    pb::StateTransition {
        state: api_state(transition.state).into(),
        time: Some(timestamp(transition.time)),
    }
}

fn transition_from(transition: &pb::StateTransition) -> Option<Transition> {
    let state =
        SandboxState::ALL.into_iter().find(|state| api_state(*state) == transition.state())?;
    let time = transition.time.as_ref()?;
    let time = DateTime::from_timestamp(time.seconds, u32::try_from(time.nanos).ok()?)?;
    Some(Transition { state, time })
}

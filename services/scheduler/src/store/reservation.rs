//! Rows of reservations.
#![allow(unreachable_pub, reason = "the derive makes public items")]

use chrono::DateTime;
use sea_orm::entity::prelude::*;
use wolfpack_types::capacity::{Demand, EncoderGrant, Grant};
use wolfpack_types::{Fault, ProjectId, ReservationId, ReservationState, SandboxId, WolfId};

use crate::domain::Record;

/// A reservation.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "reservation")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Unique with the project.
    pub request_id: String,
    /// Owner.
    pub project: String,
    /// 32 bytes.
    pub body_hash: Vec<u8>,
    /// For whom.
    pub sandbox: String,
    /// Of which wolf.
    pub wolf: String,
    /// Lower-case name.
    pub state: String,
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes; 0 is not counted.
    pub disk_bytes: i64,
    /// A limit.
    pub pids: i64,
    /// Whether a slot is held.
    pub desktop: bool,
    /// Thousandths of each device.
    pub gpu_share_milli: i32,
    /// Encoder sessions; 0 for none.
    pub encoder_sessions: i32,
    /// The device whose encoder they are of.
    pub encoder_device: Option<String>,
    /// Leadership that made it.
    pub epoch: i64,
    /// Microseconds.
    pub create_us: i64,
    /// Microseconds; only while reserved.
    pub expire_us: Option<i64>,
    /// Microseconds.
    pub end_us: Option<i64>,
}

/// Joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

fn broken(what: impl std::fmt::Display) -> Fault {
    Fault::internal(format!("a stored reservation cannot be read: {what}"))
}

impl Model {
    /// The record of a row and its devices.
    ///
    /// # Errors
    /// `INTERNAL` when the row was not written by us.
    pub fn into_record(self, devices: Vec<String>) -> Result<Record, Fault> {
        let time = |micros: i64| {
            DateTime::from_timestamp_micros(micros)
                .ok_or_else(|| broken("its time is out of range"))
        };
        let amount = |value: i64| u64::try_from(value).map_err(broken);
        Ok(Record {
            id: ReservationId::parse(&self.id)?,
            request_id: self.request_id,
            body_hash: self.body_hash.try_into().map_err(|_| broken("its hash is not 32 bytes"))?,
            project: ProjectId::parse(&self.project)?,
            sandbox: SandboxId::parse(&self.sandbox)?,
            wolf: WolfId::parse(&self.wolf)?,
            state: ReservationState::parse(&self.state).ok_or_else(|| broken(&self.state))?,
            demand: Demand {
                cpu_milli: amount(self.cpu_milli)?,
                memory_bytes: amount(self.memory_bytes)?,
                disk_bytes: amount(self.disk_bytes)?,
                pids: u32::try_from(self.pids).map_err(broken)?,
                desktop: self.desktop,
                gpu: None,
                encoder: None,
            },
            grant: Grant {
                encoder: match (self.encoder_device, u32::try_from(self.encoder_sessions)) {
                    (None, Ok(0)) => None,
                    (Some(device), Ok(sessions)) => Some(EncoderGrant { device, sessions }),
                    _ => return Err(broken("its encoder sessions have no device")),
                },
                devices,
                share_milli: u32::try_from(self.gpu_share_milli).map_err(broken)?,
            },
            epoch: self.epoch,
            create_time: time(self.create_us)?,
            expire_time: self.expire_us.map(time).transpose()?,
            end_time: self.end_us.map(time).transpose()?,
        })
    }
}

/// The row of a record; amounts are bounded by the proto's rules, far below
/// what a signed column holds.
pub fn row(record: &Record) -> ActiveModel {
    use sea_orm::ActiveValue::Set;
    let amount = |value: u64| Set(i64::try_from(value).unwrap_or(i64::MAX));
    ActiveModel {
        id: Set(record.id.to_string()),
        request_id: Set(record.request_id.clone()),
        project: Set(record.project.to_string()),
        body_hash: Set(record.body_hash.to_vec()),
        sandbox: Set(record.sandbox.to_string()),
        wolf: Set(record.wolf.to_string()),
        state: Set(record.state.as_str().to_owned()),
        cpu_milli: amount(record.demand.cpu_milli),
        memory_bytes: amount(record.demand.memory_bytes),
        disk_bytes: amount(record.demand.disk_bytes),
        pids: Set(i64::from(record.demand.pids)),
        desktop: Set(record.demand.desktop),
        gpu_share_milli: Set(i32::try_from(record.grant.share_milli).unwrap_or(i32::MAX)),
        encoder_sessions: Set(record
            .grant
            .encoder
            .as_ref()
            .map_or(0, |encoder| i32::try_from(encoder.sessions).unwrap_or(i32::MAX))),
        encoder_device: Set(record.grant.encoder.as_ref().map(|encoder| encoder.device.clone())),
        epoch: Set(record.epoch),
        create_us: Set(record.create_time.timestamp_micros()),
        expire_us: Set(record.expire_time.map(|time| time.timestamp_micros())),
        end_us: Set(record.end_time.map(|time| time.timestamp_micros())),
    }
}

//! Rows of the GPUs that reservations hold.
#![allow(unreachable_pub, reason = "the derive makes public items")]

use sea_orm::entity::prelude::*;

/// One device of one reservation. A partial unique index lets at most one live
/// reservation hold a whole device of a wolf, whatever the code above thinks.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "reservation_device")]
pub struct Model {
    /// The reservation.
    #[sea_orm(primary_key, auto_increment = false)]
    pub reservation: String,
    /// Place among the devices of the reservation, from 0.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i32,
    /// Its wolf.
    pub wolf: String,
    /// The device's id on the wolf.
    pub device: String,
    /// Thousandths of it.
    pub share_milli: i32,
    /// Whether the reservation is live.
    pub live: bool,
}

/// Joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

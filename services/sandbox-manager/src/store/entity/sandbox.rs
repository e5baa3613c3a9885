//! One row per sandbox.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sandboxes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub project: String,
    pub creator: String,
    /// Empty for none; unique among the live sandboxes of a project.
    pub display_name: String,
    /// The `Sandbox` message with display name, labels and spec only.
    pub asked: Vec<u8>,
    /// W3C trace context of the call that created it, or deletes it.
    pub traceparent: Option<String>,

    pub state: String,
    pub reason: Option<String>,
    pub message: String,
    /// A `SandboxStatus` message with transitions only.
    pub transitions: Vec<u8>,
    pub attempt: i64,
    /// Ids, separated by commas.
    pub refused_by: String,
    pub exit_code: Option<i32>,
    pub last_logs: String,

    pub wolf: Option<String>,
    pub execution: Option<String>,
    pub reservation: Option<String>,
    /// The `Reservation` message as the scheduler gave it.
    pub goods: Option<Vec<u8>>,
    pub placed_at: Option<i64>,
    pub confirmed: bool,
    pub started: bool,
    pub ran: bool,
    pub holds_container: bool,
    pub holds_reservation: bool,
    pub holds_tokens: bool,
    pub abandoned_as: Option<String>,

    pub created_at: i64,
    pub updated_at: i64,
    /// Grows with each write that a client can see; the etag.
    pub version: i64,
    /// Order of the last write among all of the service's.
    pub revision: i64,

    /// The replica that works on it.
    pub owner: Option<String>,
    /// Grows with each change of owner.
    pub owner_epoch: i64,
    /// Until when nobody else may claim it, in database time.
    pub owner_until: i64,
}

impl ActiveModelBehavior for ActiveModel {}

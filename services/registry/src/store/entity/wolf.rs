//! A host. The heartbeat columns, `gpu_telemetry` among them, are written alone
//! and often; every other write takes a new revision.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "wolves")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: String,
    pub(crate) project: Option<String>,
    pub(crate) display_name: String,
    pub(crate) labels: String,
    pub(crate) capacity: Option<Vec<u8>>,
    pub(crate) engine: Option<Vec<u8>>,
    pub(crate) agent_version: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) heartbeat_stream: i64,
    pub(crate) last_heartbeat_time: Option<i64>,
    pub(crate) engine_fault: String,
    pub(crate) used_cpu_milli: Option<i64>,
    pub(crate) used_memory_bytes: Option<i64>,
    pub(crate) used_disk_bytes: Option<i64>,
    pub(crate) used_pids: Option<i64>,
    pub(crate) running_sandboxes: Option<i64>,
    pub(crate) tunnel_attached: bool,
    pub(crate) state: String,
    pub(crate) state_message: String,
    pub(crate) revision: i64,
    pub(crate) create_time: i64,
    pub(crate) update_time: i64,
    pub(crate) delete_time: Option<i64>,
    /// A `HeartbeatRequest` with the GPUs' measurements and nothing else.
    pub(crate) gpu_telemetry: Option<Vec<u8>>,
    /// JSON list of the ids of GPUs that failed, sorted.
    pub(crate) gpus_failed: String,
    /// `WolfImages`.
    pub(crate) images: Option<Vec<u8>>,
    /// Empty when there is enough disk.
    pub(crate) disk_pressure: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

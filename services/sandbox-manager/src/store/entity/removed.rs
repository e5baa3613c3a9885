//! Rows that were purged, kept so that watches can tell.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "removed_sandboxes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    pub sandbox_id: String,
    pub project: String,
    pub removed_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}

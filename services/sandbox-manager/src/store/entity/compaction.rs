//! Up to which revision removals were forgotten; one row.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "watch_compaction")]
pub struct Model {
    /// Always `sandboxes`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub scope: String,
    /// A watch can resume from this revision or a later one.
    pub revision: i64,
}

impl ActiveModelBehavior for ActiveModel {}

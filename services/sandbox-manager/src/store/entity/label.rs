//! Labels as rows, so that a selector is an indexed look-up on both engines.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sandbox_labels")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub sandbox_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub label_key: String,
    pub project: String,
    pub label_value: String,
}

impl ActiveModelBehavior for ActiveModel {}

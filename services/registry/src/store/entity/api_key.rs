//! An API key; of its secret only the keyed hash.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_keys")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) project: String,
    pub(crate) role: String,
    pub(crate) display_name: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) create_time: i64,
    pub(crate) expire_time: Option<i64>,
    pub(crate) revoke_time: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

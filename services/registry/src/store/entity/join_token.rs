//! A join token; of its secret only the keyed hash.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "join_tokens")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: String,
    pub(crate) project: Option<String>,
    pub(crate) hash: Vec<u8>,
    pub(crate) create_user: String,
    pub(crate) create_time: i64,
    pub(crate) expire_time: i64,
    pub(crate) use_time: Option<i64>,
    pub(crate) wolf: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

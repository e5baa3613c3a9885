//! What was revoked: an API key, or the tokens of a sandbox (of one boot, or of
//! all when the execution is empty). Or a key that is not revoked and has another
//! role from then on.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "revocations")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: String,
    pub(crate) api_key: Option<String>,
    pub(crate) sandbox: Option<String>,
    pub(crate) execution: String,
    /// Not in `api_key`: a replica of an older version would take it for revoked.
    pub(crate) changed_key: Option<String>,
    /// What `changed_key` may do now.
    pub(crate) role: Option<String>,
    pub(crate) revision: i64,
    pub(crate) expire_time: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

//! Revocations: kept for as long as a token or a remembered key may live, then
//! they say nothing that time does not say by itself.

use std::time::Duration;

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    sea_query::OnConflict,
};
use wolfpack_rpc::auth::MAX_TOKEN_LIFE;
use wolfpack_types::{ApiKeyId, ExecutionId, Role, SandboxId};

use super::entity::revocation;
use super::{Database, REVOCATIONS, Result, Transaction};
use crate::domain::access::{role_of_word, role_word};
use crate::domain::time::Micros;

/// Longer than any token, and than any clock is wrong.
const KEPT: Duration = MAX_TOKEN_LIFE.saturating_add(Duration::from_secs(3600));

/// What a revocation is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Revoked {
    /// An API key.
    ApiKey(ApiKeyId),
    /// What an API key may do was changed to this.
    Role(ApiKeyId, Role),
    /// The tokens of one boot of a sandbox, or of all its boots.
    Sandbox(SandboxId, Option<ExecutionId>),
}

impl Revoked {
    /// The key of its row: the same thing revoked twice is one row.
    pub(crate) fn row_id(&self) -> String {
        match self {
            Self::ApiKey(key) => key.name(),
            Self::Role(key, _) => role_row_id(key),
            Self::Sandbox(sandbox, None) => sandbox.name(),
            Self::Sandbox(sandbox, Some(execution)) => {
                format!("{}/{}", sandbox.name(), execution.name())
            }
        }
    }
}

/// The id of the row with the role that a key was changed to.
pub(crate) fn role_row_id(key: &ApiKeyId) -> String {
    format!("{}/role", key.name())
}

impl Database {
    /// Voids the tokens of a sandbox's boot, or of all its boots.
    pub(crate) async fn revoke_sandbox(
        &self,
        sandbox: SandboxId,
        execution: Option<ExecutionId>,
    ) -> Result<i64> {
        self.tx(Revoked::Sandbox(sandbox, execution), |t, revoked| {
            Box::pin(async move {
                let now = t.now().await?;
                insert_revocation(&t, &revoked, now).await
            })
        })
        .await
    }

    /// Whether the tokens of a boot are void.
    pub(crate) async fn is_sandbox_revoked(
        &self,
        sandbox: &SandboxId,
        execution: &ExecutionId,
    ) -> Result<bool> {
        let ids = [
            Revoked::Sandbox(sandbox.clone(), None).row_id(),
            Revoked::Sandbox(sandbox.clone(), Some(execution.clone())).row_id(),
        ];
        let row = revocation::Entity::find()
            .filter(revocation::Column::Id.is_in(ids))
            .one(self.conn())
            .await?;
        Ok(row.is_some())
    }

    /// Whether the tokens of all boots of a sandbox are void.
    pub(crate) async fn is_sandbox_deleted(&self, sandbox: &SandboxId) -> Result<bool> {
        let all = Revoked::Sandbox(sandbox.clone(), None).row_id();
        Ok(revocation::Entity::find_by_id(all).one(self.conn()).await?.is_some())
    }

    /// What was revoked after a revision, oldest first.
    pub(crate) async fn revocations_after(&self, revision: i64) -> Result<Vec<revocation::Model>> {
        Ok(revocation::Entity::find()
            .filter(revocation::Column::Revision.gt(revision))
            .order_by_asc(revocation::Column::Revision)
            .all(self.conn())
            .await?)
    }

    /// Forgets what no token can outlive any more.
    pub(crate) async fn purge_revocations(&self) -> Result<u64> {
        let now = self.now().await?;
        let done = revocation::Entity::delete_many()
            .filter(revocation::Column::ExpireTime.lte(now.0))
            .exec(self.conn())
            .await?;
        Ok(done.rows_affected)
    }
}

/// The role that was told last of a key, not long ago.
pub(super) async fn told_role(t: &Transaction<'_>, key: &ApiKeyId) -> Result<Option<Role>> {
    let row = revocation::Entity::find_by_id(role_row_id(key)).one(t.tx).await?;
    Ok(row.and_then(|row| row.role.as_deref().map(role_of_word)))
}

/// Writes a revocation with a fresh revision.
pub(super) async fn insert_revocation(
    t: &Transaction<'_>,
    revoked: &Revoked,
    now: Micros,
) -> Result<i64> {
    let revision = t.revision(REVOCATIONS).await?;
    let (api_key, sandbox, execution) = match revoked {
        Revoked::ApiKey(key) => (Some(key.as_str().to_owned()), None, String::new()),
        Revoked::Role(..) => (None, None, String::new()),
        Revoked::Sandbox(sandbox, execution) => (
            None,
            Some(sandbox.as_str().to_owned()),
            execution.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        ),
    };
    let (changed_key, role) = match revoked {
        Revoked::Role(key, role) => {
            (Some(key.as_str().to_owned()), Some(role_word(*role).to_owned()))
        }
        Revoked::ApiKey(_) | Revoked::Sandbox(..) => (None, None),
    };
    let row = revocation::ActiveModel {
        id: Set(revoked.row_id()),
        api_key: Set(api_key),
        sandbox: Set(sandbox),
        execution: Set(execution),
        changed_key: Set(changed_key),
        role: Set(role),
        revision: Set(revision),
        expire_time: Set(now.plus(KEPT).0),
    };
    revocation::Entity::insert(row)
        .on_conflict(
            OnConflict::column(revocation::Column::Id)
                .update_columns([
                    revocation::Column::Role,
                    revocation::Column::Revision,
                    revocation::Column::ExpireTime,
                ])
                .to_owned(),
        )
        .exec_without_returning(t.tx)
        .await?;
    Ok(revision)
}

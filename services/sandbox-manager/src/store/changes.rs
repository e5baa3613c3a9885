//! What changed since a revision, and forgetting what is long over.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, Order, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use wolfpack_types::{ProjectId, SandboxId, SandboxState};

use super::entity::{compaction, label, removed, sandbox};
use super::{REVISIONS, Result, Sandbox, Sandboxes, Transaction, read_all};

/// A row that is gone.
#[derive(Debug, Clone)]
pub(crate) struct Removed {
    /// When, in the order of writes.
    pub(crate) revision: i64,
    /// Which.
    pub(crate) id: SandboxId,
    /// Whose.
    pub(crate) project: ProjectId,
}

/// A part of what a watch begins with, in order of revision.
pub(crate) struct SnapshotPage {
    /// Rows.
    pub(crate) sandboxes: Vec<Sandbox>,
    /// Whether more may follow.
    pub(crate) more: bool,
}

impl Sandboxes {
    /// Rows written after a revision, in order, at most `limit`.
    pub(crate) async fn written_after(&self, revision: i64, limit: u64) -> Result<Vec<Sandbox>> {
        let rows = sandbox::Entity::find()
            .filter(sandbox::Column::Revision.gt(revision))
            .order_by(sandbox::Column::Revision, Order::Asc)
            .limit(limit)
            .all(self.conn())
            .await?;
        read_all(rows)
    }

    /// Rows removed after a revision, in order, at most `limit`.
    pub(crate) async fn removed_after(&self, revision: i64, limit: u64) -> Result<Vec<Removed>> {
        let rows = removed::Entity::find()
            .filter(removed::Column::Revision.gt(revision))
            .order_by(removed::Column::Revision, Order::Asc)
            .limit(limit)
            .all(self.conn())
            .await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                Some(Removed {
                    revision: row.revision,
                    id: SandboxId::parse(&row.sandbox_id).ok()?,
                    project: ProjectId::parse(&row.project).ok()?,
                })
            })
            .collect())
    }

    /// A part of a project's sandboxes in order of revision: those written last
    /// after the first and up to the last revision of `between`.
    pub(crate) async fn snapshot(
        &self,
        project: &ProjectId,
        only: Option<&SandboxId>,
        between: (i64, i64),
        show_deleted: bool,
        limit: u64,
    ) -> Result<SnapshotPage> {
        let mut select = sandbox::Entity::find()
            .filter(sandbox::Column::Project.eq(project.as_str()))
            .filter(sandbox::Column::Revision.gt(between.0))
            .filter(sandbox::Column::Revision.lte(between.1))
            .order_by(sandbox::Column::Revision, Order::Asc)
            .limit(limit);
        if let Some(id) = only {
            select = select.filter(sandbox::Column::Id.eq(id.as_str()));
        }
        if !show_deleted {
            select = select.filter(sandbox::Column::State.ne(SandboxState::Deleted.as_str()));
        }
        let sandboxes = read_all(select.all(self.conn()).await?)?;
        let more = u64::try_from(sandboxes.len()).unwrap_or(u64::MAX) == limit;
        Ok(SnapshotPage { sandboxes, more })
    }

    /// Removals up to this revision were forgotten.
    pub(crate) async fn compacted_to(&self) -> Result<i64> {
        let row = compaction::Entity::find_by_id(REVISIONS).one(self.conn()).await?;
        Ok(row.map_or(0, |row| row.revision))
    }

    /// Removes rows that are DELETED for longer than `keep`, and forgets
    /// removals older than that; at most `limit` of each. Answers how many rows
    /// went.
    pub(crate) async fn purge(&self, keep: TimeDelta, limit: u64) -> Result<usize> {
        self.tx((keep, limit), |tx, (keep, limit)| Box::pin(purge(tx, keep, limit))).await
    }

    /// Forgets request ids that are older than `age`.
    pub(crate) async fn forget_requests(&self, age: Duration) -> Result<()> {
        self.tx(age, |tx, age| {
            Box::pin(async move {
                wolfpack_store::idempotency::sweep(tx.tx, age).await?;
                Ok(())
            })
        })
        .await
    }
}

async fn purge(tx: Transaction<'_>, keep: TimeDelta, limit: u64) -> Result<usize> {
    let now = tx.now().await?;
    let before = (now - keep).timestamp_micros();
    let old: Vec<(String, String)> = sandbox::Entity::find()
        .select_only()
        .columns([sandbox::Column::Id, sandbox::Column::Project])
        .filter(sandbox::Column::State.eq(SandboxState::Deleted.as_str()))
        .filter(sandbox::Column::UpdatedAt.lt(before))
        .limit(limit)
        .into_tuple()
        .all(tx.tx)
        .await?;
    for (id, project) in &old {
        remove(&tx, id, project, now).await?;
    }
    forget_removals(&tx, before, limit).await?;
    Ok(old.len())
}

async fn remove(tx: &Transaction<'_>, id: &str, project: &str, now: DateTime<Utc>) -> Result<()> {
    let gone = removed::ActiveModel {
        revision: Set(tx.next_revision().await?),
        sandbox_id: Set(id.to_owned()),
        project: Set(project.to_owned()),
        removed_at: Set(now.timestamp_micros()),
    };
    removed::Entity::insert(gone).exec_without_returning(tx.tx).await?;
    label::Entity::delete_many().filter(label::Column::SandboxId.eq(id)).exec(tx.tx).await?;
    sandbox::Entity::delete_by_id(id.to_owned()).exec(tx.tx).await?;
    Ok(())
}

async fn forget_removals(tx: &Transaction<'_>, before: i64, limit: u64) -> Result<()> {
    let old: Vec<i64> = removed::Entity::find()
        .select_only()
        .column(removed::Column::Revision)
        .filter(removed::Column::RemovedAt.lt(before))
        .order_by(removed::Column::Revision, Order::Asc)
        .limit(limit)
        .into_tuple()
        .all(tx.tx)
        .await?;
    let Some(newest) = old.last().copied() else { return Ok(()) };
    let floor = compaction::ActiveModel { scope: Set(REVISIONS.to_owned()), revision: Set(newest) };
    compaction::Entity::insert(floor)
        .on_conflict(
            OnConflict::column(compaction::Column::Scope)
                .update_column(compaction::Column::Revision)
                .to_owned(),
        )
        .exec_without_returning(tx.tx)
        .await?;
    removed::Entity::delete_many()
        .filter(removed::Column::Revision.lte(newest))
        .exec(tx.tx)
        .await?;
    Ok(())
}

//! Who works on a row, and writing it as its owner or as a user.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, Order, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Select, UpdateMany,
};
use wolfpack_store::Engine;
use wolfpack_types::{Fault, ProjectId, Reason, SandboxId, SandboxState, WolfId};

use super::entity::sandbox::{Column, Entity};
use super::error::not_found;
use super::{Error, Owner, Result, Sandbox, Sandboxes, Transaction, read, read_all};
use crate::domain::IllegalTransition;

#[derive(Clone)]
struct Claiming {
    id: SandboxId,
    holder: String,
    ttl: TimeDelta,
}

#[derive(Clone)]
struct Deleting {
    project: ProjectId,
    id: SandboxId,
    etag: String,
    traceparent: Option<String>,
}

impl Sandboxes {
    /// Makes `holder` the owner of a row for `ttl`, if nobody else holds it.
    /// The epoch grows when the owner changes. Answers the row as it is then;
    /// `None` when another replica holds it or the row is gone.
    pub(crate) async fn claim(
        &self,
        id: &SandboxId,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Sandbox>> {
        let claiming = Claiming { id: id.clone(), holder: holder.to_owned(), ttl: delta(ttl) };
        self.tx(claiming, |tx, claiming| Box::pin(claim(tx, claiming))).await
    }

    /// Holds a row for `ttl` from now. Answers whether `holder` still owns it in
    /// that epoch.
    pub(crate) async fn renew(
        &self,
        id: &SandboxId,
        holder: &str,
        epoch: i64,
        ttl: Duration,
    ) -> Result<bool> {
        self.hold_until(id, holder, epoch, self.now() + delta(ttl)).await
    }

    /// Lets a row go, so that any replica may claim it at once.
    pub(crate) async fn let_go(&self, id: &SandboxId, holder: &str, epoch: i64) -> Result<()> {
        self.hold_until(id, holder, epoch, DateTime::UNIX_EPOCH).await.map(drop)
    }

    async fn hold_until(
        &self,
        id: &SandboxId,
        holder: &str,
        epoch: i64,
        until: DateTime<Utc>,
    ) -> Result<bool> {
        let hold = Entity::update_many()
            .col_expr(Column::OwnerUntil, Expr::value(until.timestamp_micros()))
            .filter(Column::Id.eq(id.as_str()))
            .filter(Column::Owner.eq(holder))
            .filter(Column::OwnerEpoch.eq(epoch));
        Ok(self.update(hold).await? == 1)
    }

    /// Lets go of every row that `holder` holds.
    pub(crate) async fn let_all_go(&self, holder: &str) -> Result<()> {
        let let_go = Entity::update_many()
            .col_expr(Column::OwnerUntil, Expr::value(0_i64))
            .filter(Column::Owner.eq(holder))
            .filter(Column::OwnerUntil.gt(0));
        self.update(let_go).await.map(drop)
    }

    /// Runs one statement that has no revision. Answers how many rows it met.
    async fn update(&self, update: UpdateMany<Entity>) -> Result<u64> {
        match self.store.engine() {
            // Its one writer is queued for in order by transactions only. Our own
            // queue is passed by: a hold must not run out behind many writes.
            Engine::Sqlite => {
                self.store
                    .tx(|tx| {
                        let update = update.clone();
                        Box::pin(async move { Ok(update.exec(tx).await?.rows_affected) })
                    })
                    .await
            }
            Engine::Postgres => Ok(update.exec(self.conn()).await?.rows_affected),
        }
    }

    /// Writes a row that its owner changed, and holds it until `owner.until`.
    /// Answers the row with its new version and revision.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it was written or claimed by another since.
    pub(crate) async fn save(&self, sandbox: &Sandbox) -> Result<Sandbox> {
        self.tx(sandbox.clone(), |tx, sandbox| Box::pin(save(tx, sandbox))).await
    }

    /// Marks a sandbox of a project DELETING, in whatever state it is. One that
    /// is DELETING or DELETED already stays as it is. `traceparent` is that of the
    /// call.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, and `ETAG_MISMATCH` when `etag` is not empty and
    /// not its own.
    pub(crate) async fn mark_deleting(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        etag: &str,
        traceparent: Option<String>,
    ) -> Result<Sandbox> {
        let (project, id, etag) = (project.clone(), id.clone(), etag.to_owned());
        let deleting = Deleting { project, id, etag, traceparent };
        self.tx(deleting, |tx, deleting| Box::pin(mark_deleting(tx, deleting))).await
    }

    /// Rows that are not over for good, by id after `after`: all but those
    /// DELETED, and those FAILED that hold nothing any more.
    pub(crate) async fn unsettled(&self, after: &str, limit: u64) -> Result<Vec<Sandbox>> {
        self.page(unsettled(), after, limit).await
    }

    /// Those on any of some wolves that are not over for good, by id after
    /// `after`.
    pub(crate) async fn on_wolves(
        &self,
        wolves: &[WolfId],
        after: &str,
        limit: u64,
    ) -> Result<Vec<Sandbox>> {
        let on_them = Column::Wolf.is_in(wolves.iter().map(WolfId::as_str));
        self.page(unsettled().filter(on_them), after, limit).await
    }

    /// Those that look for any wolf, by id after `after`.
    pub(crate) async fn looking_for_a_wolf(&self, after: &str, limit: u64) -> Result<Vec<Sandbox>> {
        let looking = Column::State.eq(SandboxState::Scheduling.as_str());
        self.page(Entity::find().filter(looking), after, limit).await
    }

    async fn page(&self, of: Select<Entity>, after: &str, limit: u64) -> Result<Vec<Sandbox>> {
        let page = of.filter(Column::Id.gt(after)).order_by(Column::Id, Order::Asc).limit(limit);
        read_all(page.all(self.conn()).await?)
    }
}

/// Rows that are not over for good.
fn unsettled() -> Select<Entity> {
    let over_for_good = Condition::all()
        .add(Column::State.eq(SandboxState::Failed.as_str()))
        .add(Column::HoldsContainer.eq(false))
        .add(Column::HoldsReservation.eq(false))
        .add(Column::HoldsTokens.eq(false));
    Entity::find()
        .filter(Column::State.ne(SandboxState::Deleted.as_str()))
        .filter(over_for_good.not())
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

async fn claim(tx: Transaction<'_>, claiming: Claiming) -> Result<Option<Sandbox>> {
    let Claiming { id, holder, ttl } = claiming;
    let Some(mut sandbox) = read(Entity::find_by_id(id.as_str()).one(tx.tx).await?)? else {
        return Ok(None);
    };
    let now = tx.now().await?;
    let mine = sandbox.owner.holder.as_deref() == Some(holder.as_str());
    if !mine && sandbox.owner.until > now {
        return Ok(None);
    }
    // An owner whose hold ran out may have been followed and come again.
    let epoch = if mine && sandbox.owner.until > now {
        sandbox.owner.epoch
    } else {
        sandbox.owner.epoch + 1
    };
    let until = now.checked_add_signed(ttl).unwrap_or(now);
    let changed = Entity::update_many()
        .col_expr(Column::Owner, Expr::value(holder.clone()))
        .col_expr(Column::OwnerEpoch, Expr::value(epoch))
        .col_expr(Column::OwnerUntil, Expr::value(until.timestamp_micros()))
        .filter(Column::Id.eq(id.as_str()))
        .filter(Column::OwnerEpoch.eq(sandbox.owner.epoch))
        .filter(Column::Version.eq(sandbox.version))
        .exec(tx.tx)
        .await?;
    if changed.rows_affected != 1 {
        return Err(Error::Conflict);
    }
    sandbox.owner = Owner { holder: Some(holder), epoch, until };
    Ok(Some(sandbox))
}

async fn save(tx: Transaction<'_>, mut sandbox: Sandbox) -> Result<Sandbox> {
    let (version, epoch) = (sandbox.version, sandbox.owner.epoch);
    sandbox.version += 1;
    sandbox.revision = tx.next_revision().await?;
    sandbox.updated_at = tx.this.now();
    let changed = Entity::update_many()
        .set(sandbox.to_changes())
        .filter(Column::Id.eq(sandbox.id.as_str()))
        .filter(Column::Version.eq(version))
        .filter(Column::OwnerEpoch.eq(epoch))
        .exec(tx.tx)
        .await?;
    if changed.rows_affected == 1 { Ok(sandbox) } else { Err(Error::Conflict) }
}

async fn mark_deleting(tx: Transaction<'_>, deleting: Deleting) -> Result<Sandbox> {
    let Deleting { project, id, etag, traceparent } = deleting;
    let row = Entity::find_by_id(id.as_str())
        .filter(Column::Project.eq(project.as_str()))
        .one(tx.tx)
        .await?;
    let mut sandbox = read(row)?.ok_or_else(|| not_found(&id.name()))?;
    if !etag.is_empty() && etag != sandbox.etag() {
        return Err(Fault::new(
            Reason::EtagMismatch,
            "the sandbox changed since it was read; read it again and retry",
        )
        .about(id.name())
        .into());
    }
    let changed = sandbox
        .record
        .delete(tx.this.now())
        .map_err(|error: IllegalTransition| Fault::internal(error))?;
    if !changed {
        return Ok(sandbox);
    }
    // From here on what is done for it belongs to this call's trace.
    sandbox.traceparent = traceparent.or(sandbox.traceparent);
    save(tx, sandbox).await
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;

//! Join tokens and the wolves they let in.

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _,
    sea_query::Expr,
};
use wolfpack_types::{Fault, ProjectId, Reason, UserId, WolfId};

use super::entity::{join_token, wolf};
use super::users::find_project;
use super::{Database, Result, WOLVES};
use crate::domain::health::{Facts, Timing, judge};
use crate::domain::join_token::JoinToken;
use crate::domain::time::Micros;

/// A wolf that joins.
#[derive(Clone)]
pub(crate) struct NewWolf {
    pub(crate) id: WolfId,
    pub(crate) display_name: String,
}

impl Database {
    /// Keeps a fresh token; when it stops working.
    pub(crate) async fn create_join_token(
        &self,
        token: &JoinToken,
        project: Option<ProjectId>,
        maker: &UserId,
        ttl: Duration,
    ) -> Result<Micros> {
        let arguments =
            (token.id.clone(), token.hash(&self.pepper).to_vec(), project, maker.clone());
        self.tx(arguments, move |t, (id, hash, project, maker)| {
            Box::pin(async move {
                if let Some(project) = &project {
                    find_project(t.tx, project).await?;
                }
                let now = t.now().await?;
                let expire_time = now.plus(ttl);
                let row = join_token::ActiveModel {
                    id: Set(id.as_str().to_owned()),
                    project: Set(project.map(String::from)),
                    hash: Set(hash),
                    create_user: Set(maker.as_str().to_owned()),
                    create_time: Set(now.0),
                    expire_time: Set(expire_time.0),
                    use_time: Set(None),
                    wolf: Set(None),
                };
                row.insert(t.tx).await?;
                Ok(expire_time)
            })
        })
        .await
    }

    /// Whether a token would work now; it is not used up.
    pub(crate) async fn check_join_token(&self, token: &JoinToken) -> Result<()> {
        let row = self.matching(token).await?;
        let works = row.use_time.is_none() && row.expire_time > self.now().await?.0;
        if works { Ok(()) } else { Err(invalid().into()) }
    }

    /// The row of a token whose secret is right.
    async fn matching(&self, token: &JoinToken) -> Result<join_token::Model> {
        let row = join_token::Entity::find_by_id(token.id.as_str()).one(self.conn()).await?;
        let row = row.filter(|row| token.matches(&self.pepper, &row.hash));
        row.ok_or_else(|| invalid().into())
    }

    /// Uses a token up and makes the wolf that it lets in, both or neither. Of
    /// two wolves with one token one gets in.
    pub(crate) async fn redeem_join_token(
        &self,
        token: &JoinToken,
        new: NewWolf,
        timing: Timing,
    ) -> Result<()> {
        self.matching(token).await?;
        self.tx((token.id.clone(), new), move |t, (id, new)| {
            Box::pin(async move {
                let now = t.now().await?;
                let used = join_token::Entity::update_many()
                    .col_expr(join_token::Column::UseTime, Expr::value(now.0))
                    .col_expr(join_token::Column::Wolf, Expr::value(new.id.as_str()))
                    .filter(join_token::Column::Id.eq(id.as_str()))
                    .filter(join_token::Column::UseTime.is_null())
                    .filter(join_token::Column::ExpireTime.gt(now.0))
                    .exec(t.tx)
                    .await?;
                if used.rows_affected == 0 {
                    return Err(invalid().into());
                }
                let row = join_token::Entity::find_by_id(id.as_str()).one(t.tx).await?;
                let project = row.ok_or_else(invalid)?.project;
                let revision = t.revision(WOLVES).await?;
                joined(new, project, revision, now, timing).insert(t.tx).await?;
                Ok(())
            })
        })
        .await
    }

    /// Forgets tokens that stopped working a day ago.
    pub(crate) async fn purge_join_tokens(&self) -> Result<u64> {
        let before = self.now().await?.minus(Duration::from_secs(24 * 3600));
        let done = join_token::Entity::delete_many()
            .filter(join_token::Column::ExpireTime.lt(before.0))
            .exec(self.conn())
            .await?;
        Ok(done.rows_affected)
    }
}

/// What every token that does not work is answered.
pub(crate) fn invalid() -> Fault {
    Fault::new(
        Reason::JoinTokenInvalid,
        "the join token is unknown, expired or used; make a new one",
    )
}

fn joined(
    new: NewWolf,
    project: Option<String>,
    revision: i64,
    now: Micros,
    timing: Timing,
) -> wolf::ActiveModel {
    let facts =
        Facts { registered: false, last_heartbeat: None, tunnel_attached: false, engine_fault: "" };
    let verdict = judge(&facts, now, timing);
    wolf::ActiveModel {
        id: Set(new.id.as_str().to_owned()),
        project: Set(project),
        display_name: Set(new.display_name),
        labels: Set("{}".to_owned()),
        capacity: Set(None),
        engine: Set(None),
        agent_version: Set(String::new()),
        instance_id: Set(None),
        heartbeat_stream: Set(0),
        last_heartbeat_time: Set(None),
        engine_fault: Set(String::new()),
        used_cpu_milli: Set(None),
        used_memory_bytes: Set(None),
        used_disk_bytes: Set(None),
        used_pids: Set(None),
        running_sandboxes: Set(None),
        tunnel_attached: Set(false),
        state: Set(verdict.state.as_str().to_owned()),
        state_message: Set(verdict.message),
        revision: Set(revision),
        create_time: Set(now.0),
        update_time: Set(now.0),
        delete_time: Set(None),
        gpu_telemetry: Set(None),
        gpus_failed: Set("[]".to_owned()),
        images: Set(None),
        disk_pressure: Set(String::new()),
    }
}

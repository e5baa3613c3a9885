//! Whether wolves are alive: the heartbeat's columns, and the state that
//! follows from them.
//!
//! A beat writes its own columns alone, by one conditional update, and takes no
//! revision. A state is only ever written in a transaction that has read the
//! facts it follows from, so a sweep that looked before a beat cannot undo what
//! the beat has made true.

use std::collections::HashSet;

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};
use wolfpack_proto::types::v1::GpuTelemetry;
use wolfpack_store::Engine;
use wolfpack_types::{InstanceId, WolfId};

use super::entity::wolf;
use super::wolf_news::{News, telemetry};
use super::wolves::{live, write};
use super::{Database, Result, Transaction, WolfRow};
use crate::domain::access::wolf_not_found;
use crate::domain::health::{Facts, Timing, WolfState, judge};
use crate::domain::time::Micros;

/// What a wolf measured; absent is unknown, never zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Measurement {
    pub(crate) cpu_milli: Option<i64>,
    pub(crate) memory_bytes: Option<i64>,
    pub(crate) disk_bytes: Option<i64>,
    pub(crate) pids: Option<i64>,
    pub(crate) running_sandboxes: Option<i64>,
    /// Empty when the engine works.
    pub(crate) engine_fault: String,
    /// Of each GPU that was measured.
    pub(crate) gpus: Vec<GpuTelemetry>,
}

/// What became of a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    /// The lease is renewed; the state, and whether this beat changed it.
    Kept(WolfState, bool),
    /// There is no such wolf.
    Unknown,
    /// A newer stream or instance holds the lease.
    Superseded,
}

/// The live wolves of one state and what they measured, for metrics; a sum is
/// absent when none of them measured it.
#[derive(Debug, Clone, FromQueryResult)]
pub(crate) struct Census {
    pub(crate) state: String,
    pub(crate) wolves: i64,
    pub(crate) running_sandboxes: Option<i64>,
    pub(crate) cpu_milli: Option<i64>,
    pub(crate) memory_bytes: Option<i64>,
    pub(crate) disk_bytes: Option<i64>,
    pub(crate) pids: Option<i64>,
}

impl Database {
    /// Opens a heartbeat stream: its number fences every older one.
    /// `WOLF_NOT_FOUND` when the wolf or the instance is not known.
    pub(crate) async fn open_heartbeat(&self, id: &WolfId, instance: &InstanceId) -> Result<i64> {
        self.tx((id.clone(), instance.clone()), |t, (id, instance)| {
            Box::pin(async move {
                let row = live(t.tx, &id).await?;
                let row = row
                    .filter(|row| row.instance_id.as_deref() == Some(instance.as_str()))
                    .ok_or_else(|| wolf_not_found(&id))?;
                let stream = row.heartbeat_stream + 1;
                wolf::Entity::update_many()
                    .col_expr(wolf::Column::HeartbeatStream, Expr::value(stream))
                    .filter(wolf::Column::Id.eq(id.as_str()))
                    .exec(t.tx)
                    .await?;
                Ok(stream)
            })
        })
        .await
    }

    /// Renews the lease of a stream. News that change what placement knows are
    /// written with a revision.
    pub(crate) async fn beat(
        &self,
        id: &WolfId,
        stream: i64,
        measured: Measurement,
        news: Option<&News>,
        timing: Timing,
    ) -> Result<Beat> {
        let (now, kept) = match self.store.engine() {
            // Its one writer is queued for in order by transactions only.
            Engine::Sqlite => {
                self.tx((id.clone(), measured), move |t, (id, measured)| {
                    Box::pin(async move {
                        let now = t.now().await?;
                        Ok((now, renew(t.tx, &id, stream, measured, now).await?))
                    })
                })
                .await?
            }
            Engine::Postgres => {
                let now = self.now().await?;
                (now, renew(self.conn(), id, stream, measured, now).await?)
            }
        };
        let Some(row) = live(self.conn(), id).await? else { return Ok(Beat::Unknown) };
        if !kept {
            return Ok(Beat::Superseded);
        }
        let told = news.is_some_and(|news| news.differs_from(&row));
        if !told && !row.is_stale(now, timing) {
            return Ok(Beat::Kept(WolfState::parse(&row.state), false));
        }
        let settled = match news.filter(|_| told) {
            Some(news) => self.tell(id, stream, news, timing).await?,
            None => self.settle(id, timing).await?,
        };
        match settled {
            Some((state, changed)) => Ok(Beat::Kept(state, changed)),
            None => Ok(Beat::Unknown),
        }
    }

    /// Brings the state of a wolf in line with its facts; the state, and
    /// whether it was another one. `None` when the wolf is gone.
    pub(crate) async fn settle(
        &self,
        id: &WolfId,
        timing: Timing,
    ) -> Result<Option<(WolfState, bool)>> {
        self.tx(id.clone(), move |t, id| {
            Box::pin(async move {
                let Some(row) = live(t.tx, &id).await? else { return Ok(None) };
                let after = row.clone();
                judge_and_write(&t, row, after, timing).await.map(Some)
            })
        })
        .await
    }

    /// Says whether a broker has the tunnel of a wolf; whether that was news.
    pub(crate) async fn set_tunnel(
        &self,
        id: &WolfId,
        attached: bool,
        timing: Timing,
    ) -> Result<bool> {
        self.tx(id.clone(), move |t, id| {
            Box::pin(async move {
                let Some(row) = live(t.tx, &id).await? else { return Ok(false) };
                let after = WolfRow { tunnel_attached: attached, ..row.clone() };
                Ok(judge_and_write(&t, row, after, timing).await?.1)
            })
        })
        .await
    }

    /// The wolves whose tunnel is believed to be attached.
    pub(crate) async fn attached_wolves(&self) -> Result<HashSet<WolfId>> {
        let ids: Vec<String> = wolf::Entity::find()
            .select_only()
            .column(wolf::Column::Id)
            .filter(wolf::Column::TunnelAttached.eq(true))
            .filter(wolf::Column::DeleteTime.is_null())
            .into_tuple()
            .all(self.conn())
            .await?;
        Ok(ids.iter().filter_map(|id| WolfId::parse(id).ok()).collect())
    }

    /// The wolves that may have to be judged anew: not offline yet, and silent
    /// for longer than a live one is.
    pub(crate) async fn silent_wolves(&self, timing: Timing) -> Result<Vec<WolfId>> {
        let now = self.now().await?;
        let ids: Vec<String> = wolf::Entity::find()
            .select_only()
            .column(wolf::Column::Id)
            .filter(wolf::Column::DeleteTime.is_null())
            .filter(
                Condition::any()
                    .add(
                        Condition::all()
                            .add(wolf::Column::State.is_not_in([
                                WolfState::Suspect.as_str(),
                                WolfState::Offline.as_str(),
                            ]))
                            .add(
                                wolf::Column::LastHeartbeatTime
                                    .lte(now.minus(timing.suspect_after()).0),
                            ),
                    )
                    .add(
                        Condition::all()
                            .add(wolf::Column::State.eq(WolfState::Suspect.as_str()))
                            .add(
                                wolf::Column::LastHeartbeatTime
                                    .lte(now.minus(timing.offline_after()).0),
                            ),
                    ),
            )
            .into_tuple()
            .all(self.conn())
            .await?;
        Ok(ids.iter().filter_map(|id| WolfId::parse(id).ok()).collect())
    }

    /// How many live wolves there are in each state, and what they use.
    pub(crate) async fn census(&self) -> Result<Vec<Census>> {
        // PostgreSQL sums bigint to numeric; the cast gives one type on both.
        let sum = |column: wolf::Column| column.sum().cast_as("BIGINT");
        Ok(wolf::Entity::find()
            .select_only()
            .column(wolf::Column::State)
            .column_as(wolf::Column::Id.count(), "wolves")
            .column_as(sum(wolf::Column::RunningSandboxes), "running_sandboxes")
            .column_as(sum(wolf::Column::UsedCpuMilli), "cpu_milli")
            .column_as(sum(wolf::Column::UsedMemoryBytes), "memory_bytes")
            .column_as(sum(wolf::Column::UsedDiskBytes), "disk_bytes")
            .column_as(sum(wolf::Column::UsedPids), "pids")
            .filter(wolf::Column::DeleteTime.is_null())
            .group_by(wolf::Column::State)
            .into_model::<Census>()
            .all(self.conn())
            .await?)
    }
}

/// Writes the columns of a beat, if the stream still holds the lease.
async fn renew(
    conn: &impl ConnectionTrait,
    id: &WolfId,
    stream: i64,
    measured: Measurement,
    now: Micros,
) -> Result<bool> {
    let done = wolf::Entity::update_many()
        .col_expr(wolf::Column::LastHeartbeatTime, Expr::value(now.0))
        .col_expr(wolf::Column::EngineFault, Expr::value(measured.engine_fault))
        .col_expr(wolf::Column::UsedCpuMilli, Expr::value(measured.cpu_milli))
        .col_expr(wolf::Column::UsedMemoryBytes, Expr::value(measured.memory_bytes))
        .col_expr(wolf::Column::UsedDiskBytes, Expr::value(measured.disk_bytes))
        .col_expr(wolf::Column::UsedPids, Expr::value(measured.pids))
        .col_expr(wolf::Column::RunningSandboxes, Expr::value(measured.running_sandboxes))
        .col_expr(wolf::Column::GpuTelemetry, Expr::value(telemetry(measured.gpus)))
        .filter(wolf::Column::Id.eq(id.as_str()))
        .filter(wolf::Column::HeartbeatStream.eq(stream))
        .filter(wolf::Column::DeleteTime.is_null())
        .exec(conn)
        .await?;
    Ok(done.rows_affected > 0)
}

pub(super) async fn judge_and_write(
    t: &Transaction<'_>,
    before: WolfRow,
    mut after: WolfRow,
    timing: Timing,
) -> Result<(WolfState, bool)> {
    let now = t.now().await?;
    let verdict = judge(&after.facts(), now, timing);
    verdict.state.as_str().clone_into(&mut after.state);
    after.state_message = verdict.message;
    let changed = after != before;
    if changed {
        write(t, before, after, now).await?;
    }
    Ok((verdict.state, changed))
}

impl WolfRow {
    /// What is known of its liveness.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            registered: self.instance_id.is_some(),
            last_heartbeat: self.last_heartbeat_time.map(Micros),
            tunnel_attached: self.tunnel_attached,
            engine_fault: &self.engine_fault,
        }
    }

    fn is_stale(&self, now: Micros, timing: Timing) -> bool {
        let verdict = judge(&self.facts(), now, timing);
        verdict.state.as_str() != self.state || verdict.message != self.state_message
    }
}

//! Wolves: what they are. Whether they are alive is in `wolf_liveness`.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, Condition, ConnectionTrait,
    EntityTrait as _, IntoActiveModel as _, ModelTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use wolfpack_proto::registry::v1::{Wolf, WolfCapacity, WolfEngine};
use wolfpack_types::{InstanceId, ProjectId, WolfId};

use super::entity::wolf;
use super::settings::set_wolf_floor;
use super::{Database, Page, PageRequest, Result, Transaction, WOLVES, WolfRow, damaged};
use crate::domain::access::wolf_not_found;
use crate::domain::health::{Timing, WolfState, judge};
use crate::domain::time::Micros;

/// A tombstone is kept so long for watchers that resume.
const TOMBSTONES_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Which wolves to list.
#[derive(Clone)]
pub(crate) enum WolfScope {
    /// All of them.
    All,
    /// Shared ones and those of a project.
    Project(ProjectId),
    /// One.
    One(WolfId),
}

/// What a wolf says of itself.
#[derive(Clone)]
pub(crate) struct Registration {
    /// Empty keeps the name it joined with.
    pub(crate) display_name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) capacity: WolfCapacity,
    pub(crate) engine: Option<WolfEngine>,
    pub(crate) agent_version: String,
    pub(crate) instance: InstanceId,
}

impl Database {
    /// A wolf that is there.
    pub(crate) async fn wolf(&self, id: &WolfId) -> Result<WolfRow> {
        live(self.conn(), id).await?.ok_or_else(|| wolf_not_found(id).into())
    }

    pub(crate) async fn list_wolves(
        &self,
        scope: &WolfScope,
        request: &PageRequest,
    ) -> Result<Page<WolfRow>> {
        let mut query = wolf::Entity::find()
            .filter(wolf::Column::DeleteTime.is_null())
            .order_by_asc(wolf::Column::Id);
        query = match scope {
            WolfScope::All => query,
            WolfScope::One(id) => query.filter(wolf::Column::Id.eq(id.as_str())),
            WolfScope::Project(project) => query.filter(
                Condition::any()
                    .add(wolf::Column::Project.is_null())
                    .add(wolf::Column::Project.eq(project.as_str())),
            ),
        };
        if let Some(after) = &request.after {
            query = query.filter(wolf::Column::Id.gt(after.as_str()));
        }
        let rows = query.limit(request.limit()).all(self.conn()).await?;
        Ok(request.page(rows, |row| &row.id))
    }

    /// Wolves that changed after a revision, tombstones too, oldest first.
    pub(crate) async fn wolves_after(&self, revision: i64) -> Result<Vec<WolfRow>> {
        Ok(wolf::Entity::find()
            .filter(wolf::Column::Revision.gt(revision))
            .order_by_asc(wolf::Column::Revision)
            .all(self.conn())
            .await?)
    }

    /// Writes what a wolf says of itself. A new instance fences the heartbeat
    /// stream of the one before; the heartbeat's own columns are not touched,
    /// so a restart of an agent does not make its wolf look dead.
    pub(crate) async fn register_wolf(
        &self,
        id: &WolfId,
        registration: Registration,
        timing: Timing,
    ) -> Result<WolfRow> {
        self.tx((id.clone(), registration), move |t, (id, registration)| {
            Box::pin(async move {
                let row = live(t.tx, &id).await?.ok_or_else(|| wolf_not_found(&id))?;
                let now = t.now().await?;
                let before = row.clone();
                let after = registered(row, registration, now, timing)?;
                if after == before {
                    return Ok(before);
                }
                write(&t, before, after, now).await
            })
        })
        .await
    }

    /// Removes wolves that joined long ago and never registered: an answer to
    /// JoinWolf that nobody got.
    pub(crate) async fn remove_unregistered(&self, after: Duration) -> Result<usize> {
        self.tx((), move |t, ()| {
            Box::pin(async move {
                let now = t.now().await?;
                let rows = wolf::Entity::find()
                    .filter(wolf::Column::InstanceId.is_null())
                    .filter(wolf::Column::DeleteTime.is_null())
                    .filter(wolf::Column::CreateTime.lt(now.minus(after).0))
                    .limit(100)
                    .all(t.tx)
                    .await?;
                let removed = rows.len();
                for row in rows {
                    let gone = WolfRow { delete_time: Some(now.0), ..row.clone() };
                    write(&t, row, gone, now).await?;
                }
                Ok(removed)
            })
        })
        .await
    }

    /// Drops old tombstones and remembers up to which revision.
    pub(crate) async fn purge_wolves(&self) -> Result<usize> {
        self.tx((), |t, ()| {
            Box::pin(async move {
                let before = t.now().await?.minus(TOMBSTONES_KEPT);
                let rows = wolf::Entity::find()
                    .filter(wolf::Column::DeleteTime.lt(before.0))
                    .order_by_asc(wolf::Column::Revision)
                    .limit(100)
                    .all(t.tx)
                    .await?;
                let purged = rows.len();
                if let Some(newest) = rows.last() {
                    set_wolf_floor(t.tx, newest.revision).await?;
                }
                for row in rows {
                    row.delete(t.tx).await?;
                }
                Ok(purged)
            })
        })
        .await
    }
}

pub(super) async fn live(conn: &impl ConnectionTrait, id: &WolfId) -> Result<Option<WolfRow>> {
    Ok(wolf::Entity::find_by_id(id.as_str())
        .filter(wolf::Column::DeleteTime.is_null())
        .one(conn)
        .await?)
}

/// The row after a registration.
fn registered(
    row: WolfRow,
    registration: Registration,
    now: Micros,
    timing: Timing,
) -> Result<WolfRow> {
    let instance = String::from(registration.instance);
    let newer = row.instance_id.as_deref() != Some(instance.as_str());
    let mut row = WolfRow {
        display_name: if registration.display_name.is_empty() {
            row.display_name
        } else {
            registration.display_name
        },
        labels: serde_json::to_string(&registration.labels)
            .map_err(|error| damaged("labels", error))?,
        capacity: Some(registration.capacity.encode_to_vec()),
        engine: registration.engine.map(|engine| engine.encode_to_vec()),
        agent_version: registration.agent_version,
        instance_id: Some(instance),
        heartbeat_stream: row.heartbeat_stream + i64::from(newer),
        ..row
    };
    let verdict = judge(&row.facts(), now, timing);
    verdict.state.as_str().clone_into(&mut row.state);
    row.state_message = verdict.message;
    Ok(row)
}

/// Writes the columns that differ, with a fresh revision; never the others.
pub(super) async fn write(
    t: &Transaction<'_>,
    before: WolfRow,
    after: WolfRow,
    now: Micros,
) -> Result<WolfRow> {
    let revision = t.revision(WOLVES).await?;
    let mut columns = before.clone().into_active_model();
    macro_rules! changed {
        ($($column:ident),*) => {
            $(if after.$column != before.$column {
                columns.$column = Set(after.$column);
            })*
        };
    }
    changed!(
        display_name,
        labels,
        capacity,
        engine,
        agent_version,
        instance_id,
        heartbeat_stream,
        tunnel_attached,
        state,
        state_message,
        gpus_failed,
        images,
        disk_pressure,
        delete_time
    );
    columns.revision = Set(revision);
    columns.update_time = Set(now.0);
    Ok(columns.update(t.tx).await?)
}

impl WolfRow {
    /// The typed id.
    pub(crate) fn wolf(&self) -> Result<WolfId> {
        WolfId::parse(&self.id).map_err(|error| damaged("wolf id", error))
    }

    /// The project that alone may use the wolf.
    pub(crate) fn tenant(&self) -> Result<Option<ProjectId>> {
        self.project
            .as_deref()
            .map(|id| ProjectId::parse(id).map_err(|error| damaged("wolf project", error)))
            .transpose()
    }

    /// On the wire, with what was measured of its GPUs but without the values,
    /// which age: see [`WolfRow::with_telemetry`]. Its etag is its revision:
    /// both change with every write.
    pub(crate) fn to_proto(&self) -> Result<Wolf> {
        let capacity = self.capacity.as_deref().map(WolfCapacity::decode).transpose();
        let capacity = capacity.map_err(|error| damaged("wolf capacity", error))?;
        let engine = self.engine.as_deref().map(WolfEngine::decode).transpose();
        let state = WolfState::parse(&self.state);
        // A wolf that is well but holds devices back says why.
        let notice = capacity.as_ref().map_or("", |capacity| capacity.gpu_notice.as_str());
        let state_message = match (state, self.state_message.as_str()) {
            (WolfState::Online, "") => notice.to_owned(),
            (_, message) => message.to_owned(),
        };
        Ok(Wolf {
            name: format!("{}/{}", WolfId::COLLECTION, self.id),
            display_name: self.display_name.clone(),
            project: self
                .project
                .as_ref()
                .map(|id| format!("{}/{id}", ProjectId::COLLECTION))
                .unwrap_or_default(),
            labels: serde_json::from_str(&self.labels)
                .map_err(|error| damaged("wolf labels", error))?,
            state: state.to_proto().into(),
            state_message,
            gpu_telemetry: self.gpu_states(capacity.as_ref())?,
            images: self.images()?,
            disk_pressure: self.disk_pressure.clone(),
            capacity,
            engine: engine.map_err(|error| damaged("wolf engine", error))?,
            agent_version: self.agent_version.clone(),
            instance_id: self.instance_id.clone().unwrap_or_default(),
            tunnel_attached: self.tunnel_attached,
            last_heartbeat_time: self.last_heartbeat_time.map(|time| Micros(time).to_proto()),
            create_time: Some(Micros(self.create_time).to_proto()),
            update_time: Some(Micros(self.update_time).to_proto()),
            etag: self.revision.to_string(),
        })
    }
}

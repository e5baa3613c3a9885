//! Lists of a project's sandboxes.

use std::collections::BTreeMap;

use sea_orm::sea_query::Query;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, Order, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use wolfpack_types::{ProjectId, SandboxState};

use super::entity::{label, sandbox};
use super::{Result, Sandbox, Sandboxes, read_all};

/// Which sandboxes to list.
#[derive(Debug, Clone)]
pub(crate) struct ListQuery {
    /// Of this project.
    pub(crate) project: ProjectId,
    /// With all of these labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Also those that are DELETED.
    pub(crate) show_deleted: bool,
    /// Only the one with this name; empty for any.
    pub(crate) display_name: String,
    /// Older than this id.
    pub(crate) before: Option<String>,
    /// At most this many.
    pub(crate) size: u32,
}

/// A page.
pub(crate) struct ListPage {
    /// Newest first.
    pub(crate) sandboxes: Vec<Sandbox>,
    /// Whether older ones follow.
    pub(crate) more: bool,
}

impl Sandboxes {
    /// A page of a project's sandboxes, newest first: ids grow with time.
    pub(crate) async fn list(&self, query: &ListQuery) -> Result<ListPage> {
        let mut select = sandbox::Entity::find()
            .filter(sandbox::Column::Project.eq(query.project.as_str()))
            .order_by(sandbox::Column::Id, Order::Desc)
            .limit(u64::from(query.size) + 1);
        if !query.show_deleted {
            select = select.filter(sandbox::Column::State.ne(SandboxState::Deleted.as_str()));
        }
        if !query.display_name.is_empty() {
            select = select.filter(sandbox::Column::DisplayName.eq(query.display_name.as_str()));
        }
        if let Some(before) = &query.before {
            select = select.filter(sandbox::Column::Id.lt(before.as_str()));
        }
        for (key, value) in &query.labels {
            let with_label = Query::select()
                .column(label::Column::SandboxId)
                .from(label::Entity)
                .and_where(label::Column::Project.eq(query.project.as_str()))
                .and_where(label::Column::LabelKey.eq(key.as_str()))
                .and_where(label::Column::LabelValue.eq(value.as_str()))
                .take();
            select = select.filter(sandbox::Column::Id.in_subquery(with_label));
        }
        let mut sandboxes = read_all(select.all(self.conn()).await?)?;
        let size = usize::try_from(query.size).unwrap_or(usize::MAX);
        let more = sandboxes.len() > size;
        sandboxes.truncate(size);
        Ok(ListPage { sandboxes, more })
    }
}

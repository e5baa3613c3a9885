//! The two feeds of the registry: wolves, and revocations.

use std::sync::Arc;

use async_trait::async_trait;
use wolfpack_types::{ProjectId, WolfId};

use super::{Change, Source};
use crate::domain::time::Micros;
use crate::store::{self, Database, REVOCATIONS, RevocationRow, WOLVES, WolfRow};

/// Wolves by id.
pub(crate) struct Wolves(pub(crate) Database);

/// A wolf, read once for all watchers.
pub(crate) struct WatchedWolf {
    pub(crate) id: WolfId,
    pub(crate) project: Option<ProjectId>,
    pub(crate) wolf: wolfpack_proto::registry::v1::Wolf,
}

#[async_trait]
impl Source for Wolves {
    type Row = WatchedWolf;

    async fn current(&self) -> Result<i64, store::Error> {
        self.0.current_revision(WOLVES).await
    }

    async fn after(&self, revision: i64) -> Result<Vec<Change<WatchedWolf>>, store::Error> {
        self.0.wolves_after(revision).await?.into_iter().map(watched).collect()
    }

    async fn floor(&self) -> Result<i64, store::Error> {
        self.0.wolf_floor().await
    }

    fn is_over(&self, _: &Change<WatchedWolf>) -> bool {
        false
    }
}

fn watched(row: WolfRow) -> Result<Change<WatchedWolf>, store::Error> {
    let watched = WatchedWolf { id: row.wolf()?, project: row.tenant()?, wolf: row.to_proto()? };
    Ok(Change {
        revision: row.revision,
        deleted: row.delete_time.is_some(),
        row: Arc::new(watched),
        key: row.id,
    })
}

/// Revocations by what they are about.
pub(crate) struct Revocations(pub(crate) Database);

#[async_trait]
impl Source for Revocations {
    type Row = RevocationRow;

    async fn current(&self) -> Result<i64, store::Error> {
        self.0.current_revision(REVOCATIONS).await
    }

    async fn after(&self, revision: i64) -> Result<Vec<Change<RevocationRow>>, store::Error> {
        let rows = self.0.revocations_after(revision).await?;
        Ok(rows
            .into_iter()
            .map(|row| Change {
                key: row.id.clone(),
                revision: row.revision,
                deleted: false,
                row: Arc::new(row),
            })
            .collect())
    }

    async fn floor(&self) -> Result<i64, store::Error> {
        // Revocations are not resumed: each watch begins with all of them.
        Ok(0)
    }

    fn is_over(&self, change: &Change<RevocationRow>) -> bool {
        Micros(change.row.expire_time) <= Micros::from(wolfpack_runtime::clock::now())
    }
}

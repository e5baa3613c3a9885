//! Values of the database as a whole.

use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait as _, sea_query::OnConflict};
use wolfpack_types::{Fault, Reason};

use super::entity::setting;
use super::{Database, Result};

const PEPPER_CHECK: &str = "pepper_check";
const WOLF_FLOOR: &str = "wolves_compacted_revision";

impl Database {
    /// Remembers a hash under the first pepper that opens the database and
    /// refuses every other one: with it no key would ever match.
    pub(super) async fn check_pepper(&self) -> Result<()> {
        let check = self.pepper.hash("pepper check", "", &[]).to_vec();
        self.tx(check, |t, check| {
            Box::pin(async move {
                let Some(kept) = read(t.tx, PEPPER_CHECK).await? else {
                    return write(t.tx, PEPPER_CHECK, check).await;
                };
                if kept == check {
                    return Ok(());
                }
                Err(Fault::new(
                    Reason::Internal,
                    "the pepper is not the one this database was made with; every replica \
                     needs the pepper file of the first one",
                )
                .into())
            })
        })
        .await
    }

    /// The newest revision of a wolf whose tombstone is gone: resuming from
    /// before it would miss a deletion.
    pub(crate) async fn wolf_floor(&self) -> Result<i64> {
        let bytes = read(self.conn(), WOLF_FLOOR).await?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes))
    }
}

pub(super) async fn set_wolf_floor(conn: &impl ConnectionTrait, revision: i64) -> Result<()> {
    write(conn, WOLF_FLOOR, revision.to_be_bytes().to_vec()).await
}

async fn read(conn: &impl ConnectionTrait, name: &str) -> Result<Option<Vec<u8>>> {
    Ok(setting::Entity::find_by_id(name).one(conn).await?.map(|row| row.value))
}

async fn write(conn: &impl ConnectionTrait, name: &str, value: Vec<u8>) -> Result<()> {
    let row = setting::ActiveModel { name: Set(name.to_owned()), value: Set(value) };
    setting::Entity::insert(row)
        .on_conflict(
            OnConflict::column(setting::Column::Name)
                .update_column(setting::Column::Value)
                .to_owned(),
        )
        .exec_without_returning(conn)
        .await?;
    Ok(())
}

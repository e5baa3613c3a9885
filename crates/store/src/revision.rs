//! Watch revisions: a counter row per scope, stepped inside the transaction
//! that changes what is watched, so that revisions follow the order of commits.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::error::StoreError;
use crate::sql;

/// Steps the counter of `scope` and answers its new value, 1 at first. A
/// transaction that rolls back gives its value back.
///
/// # Errors
/// When the database fails.
pub async fn next(tx: &DatabaseTransaction, scope: &str) -> Result<i64, StoreError> {
    let row = sql::one(
        tx,
        "INSERT INTO kit_revisions (scope, value) VALUES ($1, 1) \
         ON CONFLICT (scope) DO UPDATE SET value = kit_revisions.value + 1 RETURNING value",
        [scope.into()],
    )
    .await?;
    match row {
        Some(row) => Ok(row.try_get("", "value")?),
        None => Err(StoreError::Damaged(format!("the revision of {scope} cannot be stepped"))),
    }
}

/// The last value of `scope`; 0 when nothing was changed yet.
///
/// # Errors
/// When the database fails.
pub async fn current<C: ConnectionTrait>(connection: &C, scope: &str) -> Result<i64, StoreError> {
    let row =
        sql::one(connection, "SELECT value FROM kit_revisions WHERE scope = $1", [scope.into()])
            .await?;
    Ok(row.map(|row| row.try_get("", "value")).transpose()?.unwrap_or(0))
}

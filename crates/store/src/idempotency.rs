//! Request ids: the same call sent twice has its effect once. The record is
//! written in the transaction of the effect.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use wolfpack_types::{Fault, Reason};

use crate::error::StoreError;
use crate::sql;

/// What a request id means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Not seen before; it is recorded, go on.
    New,
    /// The same call had its effect already; the name of the resource it made.
    Replay(String),
}

/// Why a request id cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// It was used before with another body.
    #[error("the request id was used before with another body")]
    Reused,
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<IdempotencyError> for Fault {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Reused => Self::new(
                Reason::RequestIdReused,
                "this request_id was used before with another body; use a fresh one",
            )
            .violates("request_id", "was used before with another body"),
            IdempotencyError::Store(error) => error.into(),
        }
    }
}

/// Claims `request_id` within `scope` (the tenant and the method) for a call
/// whose body hashes to `body_hash` and that will make `resource`.
///
/// # Errors
/// [`IdempotencyError::Reused`] when it was claimed with another body.
pub async fn claim(
    tx: &DatabaseTransaction,
    scope: &str,
    request_id: &str,
    body_hash: [u8; 32],
    resource: &str,
) -> Result<Claim, IdempotencyError> {
    let hash = || sea_orm::Value::from(body_hash.to_vec());
    let made = sql::execute(
        tx,
        "INSERT INTO kit_requests (scope, request_id, body_hash, resource, created_at) \
         VALUES ($1, $2, $3, $4, {now}) ON CONFLICT (scope, request_id) DO NOTHING",
        [scope.into(), request_id.into(), hash(), resource.into()],
    )
    .await?;
    if made == 1 {
        return Ok(Claim::New);
    }
    let row = sql::one(
        tx,
        "SELECT body_hash, resource FROM kit_requests WHERE scope = $1 AND request_id = $2",
        [scope.into(), request_id.into()],
    )
    .await?
    .ok_or_else(|| StoreError::Damaged("a request record vanished".to_owned()))?;
    let recorded: Vec<u8> = row.try_get("", "body_hash").map_err(StoreError::from)?;
    if recorded != body_hash {
        return Err(IdempotencyError::Reused);
    }
    Ok(Claim::Replay(row.try_get("", "resource").map_err(StoreError::from)?))
}

/// Forgets records older than `age`; answers how many. A request id is safe
/// from reuse for that long only.
///
/// # Errors
/// When the database fails.
pub async fn sweep<C: ConnectionTrait>(connection: &C, age: Duration) -> Result<u64, StoreError> {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    sql::execute(connection, "DELETE FROM kit_requests WHERE created_at < {now} - $1", [age.into()])
        .await
}

//! Leases by the database's own clock. The epoch only grows, for ever: it is
//! the fencing token, and whoever receives work under a lease checks it too.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, QueryResult};

use crate::error::StoreError;
use crate::{sql, time};

/// A lease that was held when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is leased.
    pub key: String,
    /// Who holds it.
    pub holder: String,
    /// How often it was acquired; the fencing token.
    pub epoch: i64,
    /// Until when, by the database's clock. Compare it only with
    /// [`Store::now`](crate::Store::now); step down earlier by your own clock.
    pub expires_at: DateTime<Utc>,
}

/// Takes the lease if it is free, has expired, or is the same holder's (who may
/// have restarted: the epoch grows then too). `None` while another holds it.
///
/// # Errors
/// When the database fails.
pub async fn acquire<C: ConnectionTrait>(
    connection: &C,
    key: &str,
    holder: &str,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    let row = sql::one(
        connection,
        "INSERT INTO kit_leases (key, holder, epoch, expires_at) VALUES ($1, $2, 1, {now} + $3) \
         ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, \
         epoch = kit_leases.epoch + 1, expires_at = {now} + $3 \
         WHERE kit_leases.expires_at <= {now} OR kit_leases.holder = excluded.holder \
         RETURNING key, holder, epoch, expires_at",
        [key.into(), holder.into(), micros(ttl).into()],
    )
    .await?;
    row.map(|row| read(&row)).transpose()
}

/// Prolongs a lease that is still held under the same epoch. `None` when it was
/// lost: stop the work at once.
///
/// # Errors
/// When the database fails; the lease may be either way.
pub async fn renew<C: ConnectionTrait>(
    connection: &C,
    lease: &Lease,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    let row = sql::one(
        connection,
        "UPDATE kit_leases SET expires_at = {now} + $4 \
         WHERE key = $1 AND holder = $2 AND epoch = $3 AND expires_at > {now} \
         RETURNING key, holder, epoch, expires_at",
        [
            lease.key.as_str().into(),
            lease.holder.as_str().into(),
            lease.epoch.into(),
            micros(ttl).into(),
        ],
    )
    .await?;
    row.map(|row| read(&row)).transpose()
}

/// Gives it back, so that another need not wait; whether it was still held.
///
/// # Errors
/// When the database fails.
pub async fn release<C: ConnectionTrait>(
    connection: &C,
    lease: &Lease,
) -> Result<bool, StoreError> {
    // The row stays: it remembers the epoch.
    let changed = sql::execute(
        connection,
        "UPDATE kit_leases SET expires_at = 0 WHERE key = $1 AND holder = $2 AND epoch = $3 \
         AND expires_at > {now}",
        [lease.key.as_str().into(), lease.holder.as_str().into(), lease.epoch.into()],
    )
    .await?;
    Ok(changed == 1)
}

/// Whether it is held now under this very epoch. Asked inside the transaction
/// of the guarded work, it fences out a former holder.
///
/// # Errors
/// When the database fails.
pub async fn holds<C: ConnectionTrait>(connection: &C, lease: &Lease) -> Result<bool, StoreError> {
    let row = sql::one(
        connection,
        "SELECT 1 AS held FROM kit_leases \
         WHERE key = $1 AND holder = $2 AND epoch = $3 AND expires_at > {now}",
        [lease.key.as_str().into(), lease.holder.as_str().into(), lease.epoch.into()],
    )
    .await?;
    Ok(row.is_some())
}

fn micros(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX / 4)
}

fn read(row: &QueryResult) -> Result<Lease, StoreError> {
    Ok(Lease {
        key: row.try_get("", "key")?,
        holder: row.try_get("", "holder")?,
        epoch: row.try_get("", "epoch")?,
        expires_at: time::from_micros(row.try_get("", "expires_at")?),
    })
}

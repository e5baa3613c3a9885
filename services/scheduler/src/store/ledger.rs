//! Batches of changed reservations, each one transaction.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QueryOrder, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use wolfpack_store::{Engine, Store, StoreError};
use wolfpack_types::{Fault, ReservationId, ReservationState};

use super::{Term, reservation, reservation_device};
use crate::domain::{Change, Record};

/// Why a batch was not written. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another scheduler leads; this one must write nothing any more.
    #[error("another scheduler leads: epoch {mine} is not the shard's")]
    Fenced {
        /// The epoch that was checked.
        mine: i64,
    },
    /// Rows are not what the book believes: it must be read again.
    #[error("stored reservations are not what they were taken for: {0}")]
    Conflict(String),
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

impl From<DbErr> for CommitError {
    fn from(error: DbErr) -> Self {
        let error = StoreError::from(error);
        if error.is_unique_violation() {
            Self::Conflict("a row with the same key is there".to_owned())
        } else {
            Self::Store(error)
        }
    }
}

/// Reads and writes reservations.
#[derive(Clone)]
pub struct LedgerStore {
    store: Store,
}

impl LedgerStore {
    /// Over an open store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Writes changes in one transaction that first checks the leadership. Several
    /// changes of one reservation become one write.
    ///
    /// # Errors
    /// When it was not written; nothing was.
    pub async fn commit(&self, term: &Term, changes: &[Change]) -> Result<(), CommitError> {
        let folded = fold(changes);
        // READ COMMITTED is enough: the leadership's row is locked for the whole
        // transaction, and only its holder writes reservations.
        let options = TransactionOptions {
            sqlite_transaction_mode: (self.store.engine() == Engine::Sqlite)
                .then_some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let tx = self.store.conn().begin_with_options(options).await?;
        match self.write(&tx, term, &folded).await {
            Ok(()) => tx.commit().await.map_err(CommitError::from),
            Err(error) => {
                if let Err(rollback) = tx.rollback().await {
                    tracing::warn!(%rollback, "a batch could not be rolled back");
                }
                Err(error)
            }
        }
    }

    async fn write(
        &self,
        tx: &DatabaseTransaction,
        term: &Term,
        changes: &[Change],
    ) -> Result<(), CommitError> {
        if !term.guard(tx).await? {
            return Err(CommitError::Fenced { mine: term.epoch() });
        }
        let made: Vec<&Record> = changes
            .iter()
            .filter(|change| change.before.is_none())
            .map(|change| &change.after)
            .collect();
        if !made.is_empty() {
            let rows = made.iter().map(|record| reservation::row(record));
            reservation::Entity::insert_many(rows).exec_without_returning(tx).await?;
            let devices: Vec<_> = made.iter().flat_map(|record| device_rows(record)).collect();
            if !devices.is_empty() {
                reservation_device::Entity::insert_many(devices).exec_without_returning(tx).await?;
            }
        }
        self.transition(tx, changes).await
    }

    async fn transition(
        &self,
        tx: &DatabaseTransaction,
        changes: &[Change],
    ) -> Result<(), CommitError> {
        type Step = (ReservationState, ReservationState, Option<i64>);
        let mut steps: BTreeMap<Step, Vec<String>> = BTreeMap::new();
        let mut ended = Vec::new();
        for change in changes {
            let Some(before) = &change.before else { continue };
            let after = &change.after;
            let end = after.end_time.map(|time| time.timestamp_micros());
            steps.entry((before.state, after.state, end)).or_default().push(after.id.to_string());
            if !after.state.is_live() && !after.grant.devices.is_empty() {
                ended.push(after.id.to_string());
            }
        }
        for ((before, after, end), ids) in steps {
            let wanted = ids.len() as u64;
            let written = reservation::Entity::update_many()
                .col_expr(reservation::Column::State, Expr::value(after.as_str()))
                .col_expr(reservation::Column::ExpireUs, Expr::value(None::<i64>))
                .col_expr(reservation::Column::EndUs, Expr::value(end))
                .filter(reservation::Column::Id.is_in(ids))
                .filter(reservation::Column::State.eq(before.as_str()))
                .exec(tx)
                .await?
                .rows_affected;
            if written != wanted {
                return Err(CommitError::Conflict(format!(
                    "{written} of {wanted} were {}",
                    before.as_str()
                )));
            }
        }
        if !ended.is_empty() {
            reservation_device::Entity::update_many()
                .col_expr(reservation_device::Column::Live, Expr::value(false))
                .filter(reservation_device::Column::Reservation.is_in(ended))
                .exec(tx)
                .await?;
        }
        Ok(())
    }

    /// All that are live.
    ///
    /// # Errors
    /// When the database fails or a row is not ours.
    pub async fn live(&self) -> Result<Vec<Record>, Fault> {
        let states =
            [ReservationState::Reserved, ReservationState::Bound].map(ReservationState::as_str);
        let rows = reservation::Entity::find()
            .filter(reservation::Column::State.is_in(states))
            .all(self.store.conn())
            .await
            .map_err(database)?;
        let devices = reservation_device::Entity::find()
            .filter(reservation_device::Column::Live.eq(true))
            .order_by_asc(reservation_device::Column::Position)
            .all(self.store.conn())
            .await
            .map_err(database)?;
        records(rows, devices)
    }

    /// One, live or ended.
    ///
    /// # Errors
    /// As [`Self::live`].
    pub async fn get(&self, id: &ReservationId) -> Result<Option<Record>, Fault> {
        let row = reservation::Entity::find_by_id(id.as_str())
            .one(self.store.conn())
            .await
            .map_err(database)?;
        let Some(row) = row else { return Ok(None) };
        Ok(self.with_devices(vec![row]).await?.pop())
    }

    /// Those that were made by these request ids, whatever their project.
    ///
    /// # Errors
    /// As [`Self::live`].
    pub async fn by_requests(&self, request_ids: &[String]) -> Result<Vec<Record>, Fault> {
        if request_ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = reservation::Entity::find()
            .filter(reservation::Column::RequestId.is_in(request_ids.iter().map(String::as_str)))
            .all(self.store.conn())
            .await
            .map_err(database)?;
        self.with_devices(rows).await
    }

    /// Forgets those that ended longer ago than `age`, and with them what makes
    /// their request ids known. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune(
        &self,
        now: chrono::DateTime<chrono::Utc>,
        age: Duration,
    ) -> Result<u64, Fault> {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let before = now.timestamp_micros().saturating_sub(age);
        reservation::Entity::delete_many()
            .filter(reservation::Column::EndUs.lt(before))
            .exec(self.store.conn())
            .await
            .map(|deleted| deleted.rows_affected)
            .map_err(database)
    }

    async fn with_devices(&self, rows: Vec<reservation::Model>) -> Result<Vec<Record>, Fault> {
        let holders: Vec<&str> =
            rows.iter().filter(|row| row.gpu_share_milli > 0).map(|row| row.id.as_str()).collect();
        let devices = if holders.is_empty() {
            Vec::new()
        } else {
            reservation_device::Entity::find()
                .filter(reservation_device::Column::Reservation.is_in(holders))
                .order_by_asc(reservation_device::Column::Position)
                .all(self.store.conn())
                .await
                .map_err(database)?
        };
        records(rows, devices)
    }
}

fn database(error: DbErr) -> Fault {
    StoreError::from(error).into()
}

fn records(
    rows: Vec<reservation::Model>,
    devices: Vec<reservation_device::Model>,
) -> Result<Vec<Record>, Fault> {
    let mut by_reservation: HashMap<String, Vec<String>> = HashMap::new();
    for device in devices {
        by_reservation.entry(device.reservation).or_default().push(device.device);
    }
    rows.into_iter()
        .map(|row| {
            let devices = by_reservation.remove(&row.id).unwrap_or_default();
            row.into_record(devices)
        })
        .collect()
}

/// One change a reservation: the first `before`, the last `after`.
fn fold(changes: &[Change]) -> Vec<Change> {
    let mut folded: Vec<Change> = Vec::with_capacity(changes.len());
    let mut places: HashMap<&ReservationId, usize> = HashMap::new();
    for change in changes {
        match places.get(&change.after.id) {
            Some(place) => folded[*place].after = change.after.clone(),
            None => {
                places.insert(&change.after.id, folded.len());
                folded.push(change.clone());
            }
        }
    }
    folded
}

fn device_rows(record: &Record) -> impl Iterator<Item = reservation_device::ActiveModel> {
    let share = i32::try_from(record.grant.share_milli).unwrap_or(i32::MAX);
    (0i32..).zip(&record.grant.devices).map(move |(position, device)| {
        reservation_device::ActiveModel {
            reservation: Set(record.id.to_string()),
            position: Set(position),
            wolf: Set(record.wolf.to_string()),
            device: Set(device.clone()),
            share_milli: Set(share),
            live: Set(record.state.is_live()),
        }
    })
}

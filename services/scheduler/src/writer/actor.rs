//! The task.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::TimeDelta;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::BoxError;
use wolfpack_types::{Fault, Reason, ReservationId};

use super::batch::{Answer, Batch, Purpose};
use super::{BATCH, Command, FleetChange, Placement, Reply, View, WriterHandle};
use crate::domain::{Book, ConfirmRefused, Record, Stamp};
use crate::fleet::FleetHealth;
use crate::leadership::{Lead, Leadership};
use crate::metrics::Metrics;
use crate::placement::NoFit;
use crate::store::{CommitError, LedgerStore};

/// How often reservations that are over are looked for.
const SWEEP: Duration = Duration::from_millis(500);
/// How often ended reservations that are old enough are forgotten.
const PRUNE: Duration = Duration::from_secs(600);

/// Bounds of the writer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Commands that may wait.
    pub queue: usize,
    /// How long a reservation lives unconfirmed.
    pub reservation_ttl: Duration,
    /// How long ended reservations and their request ids are kept.
    pub retention: Duration,
}

/// Owns the book.
pub struct Writer {
    commands: mpsc::Receiver<Command>,
    view: Arc<ArcSwap<View>>,
    book: Book,
    /// The leadership for which the book was loaded.
    loaded: Option<i64>,
    store: LedgerStore,
    leadership: Leadership,
    fleet: FleetHealth,
    metrics: Metrics,
    limits: Limits,
    pruned_at: Instant,
    stop: CancellationToken,
}

impl Writer {
    /// A writer and the handle to it. `stop` ends it after the commands that
    /// wait were answered.
    #[must_use]
    pub fn new(
        store: LedgerStore,
        leadership: Leadership,
        fleet: FleetHealth,
        metrics: Metrics,
        limits: Limits,
        stop: CancellationToken,
    ) -> (Self, WriterHandle, mpsc::Sender<Command>) {
        let (sender, commands) = mpsc::channel(limits.queue);
        let view = Arc::new(ArcSwap::from_pointee(View::default()));
        let handle = WriterHandle { commands: sender.clone(), view: Arc::clone(&view) };
        let writer = Self {
            commands,
            view,
            book: Book::default(),
            loaded: None,
            store,
            leadership,
            fleet,
            metrics,
            limits,
            pruned_at: Instant::now(),
            stop,
        };
        (writer, handle, sender)
    }

    /// Runs until stopped.
    ///
    /// # Errors
    /// Never by itself; failures of the store are answered and waited out.
    pub async fn run(mut self) -> Result<(), BoxError> {
        let mut inbox = Vec::with_capacity(BATCH);
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leads = self.leadership.changes();
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                count = self.commands.recv_many(&mut inbox, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = stop.cancelled() => return Ok(()),
                _ = leads.changed() => {}
                _ = sweep.tick() => {}
            }
            let commands = std::mem::take(&mut inbox);
            self.turn(commands).await;
        }
    }

    /// One batch: decide, write, answer.
    async fn turn(&mut self, commands: Vec<Command>) {
        let ready = self.ready().await;
        let known = match &ready {
            Ok(_) => self.known(&commands).await,
            Err(fault) => Err(fault.clone()),
        };
        let (lead, known) = match (ready, known) {
            (Ok(lead), Ok(known)) => (lead, known),
            (_, Err(fault)) | (Err(fault), Ok(_)) => {
                self.refuse(commands, &fault);
                self.publish();
                return;
            }
        };
        let stamp = Stamp {
            now: lead.database_now(),
            epoch: lead.term.epoch(),
            ttl: TimeDelta::from_std(self.limits.reservation_ttl).unwrap_or(TimeDelta::MAX),
        };
        let mut batch = Batch::default();
        self.decide(commands, known, &stamp, &mut batch);
        let room = BATCH.saturating_sub(batch.changes.len());
        batch.changes.extend(self.book.reap(stamp.now, room));
        if !batch.changes.is_empty() {
            let began = Instant::now();
            if let Err(error) = self.store.commit(&lead.term, &batch.changes).await {
                let fault = self.failed(error, lead.term.epoch());
                batch.fail(&fault);
                self.publish();
                return;
            }
            self.metrics.committed(&batch.changes, began.elapsed());
        }
        self.publish();
        self.answer(batch).await;
        self.prune(&lead).await;
    }

    /// Whether decisions can be made: this process leads and its book is that
    /// of the store.
    async fn ready(&mut self) -> Result<Lead, Fault> {
        let Some(lead) = self.leadership.current() else {
            self.loaded = None;
            return Err(not_leader());
        };
        let epoch = lead.term.epoch();
        if self.loaded != Some(epoch) {
            self.loaded = None;
            let records = self.store.live().await?;
            tracing::info!(epoch, live = records.len(), "reservations are loaded");
            self.book.load(records);
            self.loaded = Some(epoch);
        }
        Ok(lead)
    }

    /// Reservations that requests of this batch have made before.
    async fn known(&self, commands: &[Command]) -> Result<Vec<Record>, Fault> {
        let ids: Vec<String> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Place(placement, _) => Some(placement.request_id.clone()),
                Command::Confirm(..) | Command::Release(..) | Command::Fleet(_) => None,
            })
            .collect();
        self.store.by_requests(&ids).await
    }

    /// The fleet is heard also while nothing can be decided.
    fn refuse(&mut self, commands: Vec<Command>, fault: &Fault) {
        for command in commands {
            match command {
                Command::Fleet(change) => self.fleet_changed(change),
                Command::Place(_, reply)
                | Command::Confirm(_, reply)
                | Command::Release(_, _, reply) => {
                    let _ = reply.send(Err(fault.clone()));
                }
            }
        }
    }

    fn decide(
        &mut self,
        commands: Vec<Command>,
        known: Vec<Record>,
        stamp: &Stamp,
        batch: &mut Batch,
    ) {
        let mut known: HashMap<(String, String), Record> = known
            .into_iter()
            .map(|record| ((record.project.to_string(), record.request_id.clone()), record))
            .collect();
        for command in commands {
            match command {
                Command::Fleet(change) => self.fleet_changed(change),
                Command::Place(placement, reply) => {
                    let key = (placement.project.to_string(), placement.request_id.clone());
                    let placed = match known.get(&key) {
                        Some(record) => replay(record, &placement),
                        None => self.place(*placement, stamp, batch),
                    };
                    if let Ok(record) = &placed {
                        known.insert(key, record.clone());
                    }
                    batch.answer(reply, placed);
                }
                Command::Confirm(id, reply) => self.confirm(id, reply, stamp, batch),
                Command::Release(id, outcome, reply) => {
                    match self.book.release(&id, outcome, stamp.now) {
                        Some(change) => {
                            batch.answer(reply, Ok(change.after.clone()));
                            batch.changes.push(change);
                        }
                        None => batch.look_up(reply, id, Purpose::Release),
                    }
                }
            }
        }
    }

    fn place(
        &mut self,
        placement: Placement,
        stamp: &Stamp,
        batch: &mut Batch,
    ) -> Result<Record, Fault> {
        self.fleet.usable()?;
        let Placement { order, project, sandbox, request_id, body_hash } = placement;
        let placed = self.book.place(&order, project, sandbox, (request_id, body_hash), stamp);
        self.metrics.decided(placed.is_ok());
        let change = placed.map_err(|no_fit| no_wolf_fits(&no_fit))?;
        let record = change.after.clone();
        batch.changes.push(change);
        Ok(record)
    }

    fn confirm(&mut self, id: ReservationId, reply: Reply, stamp: &Stamp, batch: &mut Batch) {
        match self.book.confirm(&id, stamp.now) {
            Ok((record, change)) => {
                batch.changes.extend(change);
                batch.answer(reply, Ok(record));
            }
            Err(ConfirmRefused::Expired(change)) => {
                batch.answer(reply, Err(not_live(&change.after)));
                batch.changes.push(*change);
            }
            Err(ConfirmRefused::NotLive) => batch.look_up(reply, id, Purpose::Confirm),
        }
    }

    fn fleet_changed(&mut self, change: FleetChange) {
        match change {
            FleetChange::Replaced(fleet) => {
                self.book.replace_fleet(fleet);
                self.fleet.synced();
            }
            FleetChange::Upserted(facts) => self.book.upsert(*facts),
            FleetChange::Removed(wolf) => self.book.remove(&wolf),
        }
    }

    /// The book is ahead of the store, or the store did not say whether it
    /// wrote: the book is read again before the next decision.
    fn failed(&mut self, error: CommitError, epoch: i64) -> Fault {
        self.loaded = None;
        match error {
            CommitError::Fenced { .. } => {
                self.leadership.lost(epoch);
                not_leader()
            }
            CommitError::Conflict(_) | CommitError::Store(_) => {
                tracing::error!(%error, "a batch was not written");
                Fault::new(
                    Reason::DependencyUnavailable,
                    "the scheduler could not write its decision; try again with the same request id",
                )
                .retry_in(Duration::from_millis(500))
                .caused_by(error)
            }
        }
    }

    async fn answer(&self, batch: Batch) {
        for (reply, answer) in batch.answers {
            let answer = match answer {
                Answer::Ready(answer) => *answer,
                Answer::Ended(id, purpose) => match self.store.get(&id).await {
                    Ok(Some(record)) if purpose == Purpose::Release => Ok(record),
                    Ok(Some(record)) => Err(not_live(&record)),
                    Ok(None) => Err(not_found(&id)),
                    Err(fault) => Err(fault),
                },
            };
            let _ = reply.send(answer);
        }
    }

    fn publish(&self) {
        let view = View { epoch: self.loaded, hosts: Arc::new(self.book.snapshot()) };
        self.metrics.gauges(self.loaded.is_some(), view.hosts.len(), self.book.live().len());
        self.view.store(Arc::new(view));
    }

    async fn prune(&mut self, lead: &Lead) {
        if self.pruned_at.elapsed() < PRUNE {
            return;
        }
        self.pruned_at = Instant::now();
        match self.store.prune(lead.database_now(), self.limits.retention).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "old reservations are forgotten"),
            Err(error) => tracing::warn!(%error, "old reservations could not be forgotten"),
        }
    }
}

fn replay(record: &Record, placement: &Placement) -> Result<Record, Fault> {
    if record.body_hash == placement.body_hash {
        return Ok(record.clone());
    }
    Err(Fault::new(
        Reason::RequestIdReused,
        "this request id was used with another body; choose a new one",
    )
    .with("request_id", placement.request_id.as_str()))
}

/// Also said by handlers that read.
pub(crate) fn not_leader() -> Fault {
    Fault::new(Reason::SchedulerNotLeader, "this scheduler does not lead; try again")
        .retry_in(Duration::from_millis(500))
}

fn not_live(record: &Record) -> Fault {
    Fault::new(
        Reason::ReservationNotLive,
        format!("the reservation is {}; place the sandbox again", record.state.as_str()),
    )
    .about(record.id.name())
    .with("state", record.state.as_str())
}

fn not_found(id: &ReservationId) -> Fault {
    Fault::new(Reason::ReservationNotFound, "there is no such reservation; place the sandbox first")
        .about(id.name())
}

fn no_wolf_fits(no_fit: &NoFit) -> Fault {
    let message = match (&no_fit.example, no_fit.seen) {
        (Some(example), seen) => format!(
            "none of {seen} wolves takes this shape now, most often because: {example}; \
             ask Explain for each of them, ask for less, or add a wolf"
        ),
        (None, _) => "no wolf serves this project yet; add one".to_owned(),
    };
    no_fit.blocked_by.iter().fold(
        Fault::new(Reason::NoWolfFits, message).with("wolves", no_fit.seen.to_string()),
        |fault, (blocker, count)| fault.with(blocker, count.to_string()),
    )
}

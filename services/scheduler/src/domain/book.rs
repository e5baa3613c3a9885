//! The book: every live reservation and every wolf, kept so that what is held
//! of a wolf is at all times the sum of its live reservations. Each operation
//! says what changed, for the store; when that write fails the book is loaded
//! again, since only the store knows whether it happened.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use wolfpack_types::capacity::{Capacity, Demand, Ledger};
use wolfpack_types::{ProjectId, ReservationId, ReservationState, SandboxId, WolfId};

use super::record::{Record, Stamp};
use crate::placement::{Health, Host, NoFit, Offer, Order, best};

/// What the registry says of a wolf.
#[derive(Debug, Clone)]
pub struct WolfFacts {
    /// Its id.
    pub id: WolfId,
    /// A name for people.
    pub display_name: String,
    /// The only project that may use it.
    pub project: Option<ProjectId>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Health.
    pub health: Health,
    /// Whether its tunnel is attached.
    pub tunnel_attached: bool,
    /// What it offers beside its goods.
    pub offer: Offer,
    /// All it can give.
    pub capacity: Capacity,
}

/// One reservation that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As it was; `None` when it was made.
    pub before: Option<Record>,
    /// As it is.
    pub after: Record,
}

/// Why a reservation cannot be confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmRefused {
    /// It is not live here; the store knows whether it ever was.
    NotLive,
    /// Its time was over; it expires with this.
    Expired(Box<Change>),
}

/// Live reservations and wolves.
#[derive(Debug, Default)]
pub struct Book {
    /// Sorted by id: ties and listings have one order.
    hosts: Vec<Arc<Host>>,
    live: HashMap<ReservationId, Record>,
    by_wolf: BTreeMap<WolfId, BTreeSet<ReservationId>>,
    expiry: BTreeSet<(DateTime<Utc>, ReservationId)>,
    /// Whether the whole fleet was seen once: before that a wolf that is not
    /// here may just not have been told yet.
    complete: bool,
}

impl Book {
    /// The wolves, by id; cheap, and what is done to the book later does not
    /// show in it.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<Host>> {
        self.hosts.clone()
    }

    /// Live reservations.
    #[must_use]
    pub fn live(&self) -> &HashMap<ReservationId, Record> {
        &self.live
    }

    /// Forgets all reservations and takes these live ones: after a restart or a
    /// change of leadership the store is the truth.
    pub fn load(&mut self, records: Vec<Record>) {
        self.live.clear();
        self.by_wolf.clear();
        self.expiry.clear();
        for host in &mut self.hosts {
            let host = Arc::make_mut(host);
            host.ledger = Ledger::new(host.ledger.capacity().clone());
        }
        for record in records {
            self.insert(record);
        }
    }

    /// The whole fleet: wolves that are not among these are gone.
    pub fn replace_fleet(&mut self, fleet: Vec<WolfFacts>) {
        let names: BTreeSet<WolfId> = fleet.iter().map(|facts| facts.id.clone()).collect();
        self.hosts.retain(|host| names.contains(&host.id));
        for facts in fleet {
            self.upsert(facts);
        }
        self.complete = true;
    }

    /// A wolf is there or changed.
    pub fn upsert(&mut self, facts: WolfFacts) {
        let WolfFacts {
            id,
            display_name,
            project,
            labels,
            health,
            tunnel_attached,
            offer,
            capacity,
        } = facts;
        let ledger = match self.hosts.binary_search_by(|host| host.id.cmp(&id)) {
            Ok(index) => {
                let mut ledger = self.hosts[index].ledger.clone();
                ledger.set_capacity(capacity);
                ledger
            }
            Err(_) => {
                let mut ledger = Ledger::new(capacity);
                for key in self.by_wolf.get(&id).into_iter().flatten() {
                    if let Some(record) = self.live.get(key) {
                        ledger.adopt(key.clone(), record.holding());
                    }
                }
                ledger
            }
        };
        let host = Arc::new(Host {
            id,
            display_name,
            project,
            labels,
            health,
            tunnel_attached,
            offer,
            ledger,
        });
        match self.hosts.binary_search_by(|other| other.id.cmp(&host.id)) {
            Ok(index) => self.hosts[index] = host,
            Err(index) => self.hosts.insert(index, host),
        }
    }

    /// A wolf is gone. Its reservations become lost by the next [`Self::reap`].
    pub fn remove(&mut self, id: &WolfId) {
        if let Ok(index) = self.hosts.binary_search_by(|host| host.id.cmp(id)) {
            self.hosts.remove(index);
        }
    }

    /// Chooses a wolf and reserves its goods.
    ///
    /// # Errors
    /// When no wolf takes it; nothing changed.
    pub fn place(
        &mut self,
        order: &Order,
        project: ProjectId,
        sandbox: SandboxId,
        request: (String, [u8; 32]),
        stamp: &Stamp,
    ) -> Result<Change, NoFit> {
        let fit = best(&self.hosts, order)?;
        let record = Record {
            id: ReservationId::new(),
            request_id: request.0,
            body_hash: request.1,
            project,
            sandbox,
            wolf: fit.host.id.clone(),
            state: ReservationState::Reserved,
            demand: Demand { gpu: None, encoder: None, ..order.demand.clone() },
            grant: fit.grant,
            epoch: stamp.epoch,
            create_time: stamp.now,
            expire_time: Some(stamp.now + stamp.ttl),
            end_time: None,
        };
        self.insert(record.clone());
        Ok(Change { before: None, after: record })
    }

    /// Binds a reservation. A bound one is returned as it is, without a change.
    ///
    /// # Errors
    /// When it is not live or its time is over.
    pub fn confirm(
        &mut self,
        id: &ReservationId,
        now: DateTime<Utc>,
    ) -> Result<(Record, Option<Change>), ConfirmRefused> {
        let Some(record) = self.live.get(id) else { return Err(ConfirmRefused::NotLive) };
        if record.state == ReservationState::Bound {
            return Ok((record.clone(), None));
        }
        if record.is_due(now) {
            return Err(match self.become_state(id, ReservationState::Expired, now) {
                Some(change) => ConfirmRefused::Expired(Box::new(change)),
                None => ConfirmRefused::NotLive,
            });
        }
        match self.become_state(id, ReservationState::Bound, now) {
            Some(change) => Ok((change.after.clone(), Some(change))),
            None => Err(ConfirmRefused::NotLive),
        }
    }

    /// Ends a reservation; `None` when it is not live or `outcome` is no end.
    pub fn release(
        &mut self,
        id: &ReservationId,
        outcome: ReservationState,
        now: DateTime<Utc>,
    ) -> Option<Change> {
        if outcome.is_live() {
            return None;
        }
        self.become_state(id, outcome, now)
    }

    /// Ends at most `limit` reservations whose time is over or whose wolf is
    /// gone.
    pub fn reap(&mut self, now: DateTime<Utc>, limit: usize) -> Vec<Change> {
        let due: Vec<(ReservationId, ReservationState)> = self
            .expiry
            .iter()
            .take_while(|(expire, _)| *expire <= now)
            .map(|(_, id)| (id.clone(), ReservationState::Expired))
            .take(limit)
            .collect();
        let mut changes: Vec<Change> =
            due.iter().filter_map(|(id, state)| self.become_state(id, *state, now)).collect();
        if self.complete && changes.len() < limit {
            let orphans: Vec<ReservationId> = self
                .by_wolf
                .iter()
                .filter(|(wolf, _)| self.hosts.binary_search_by(|host| host.id.cmp(wolf)).is_err())
                .flat_map(|(_, ids)| ids.iter().cloned())
                .take(limit - changes.len())
                .collect();
            changes.extend(
                orphans.iter().filter_map(|id| self.become_state(id, ReservationState::Lost, now)),
            );
        }
        changes
    }

    fn become_state(
        &mut self,
        id: &ReservationId,
        state: ReservationState,
        now: DateTime<Utc>,
    ) -> Option<Change> {
        let after = self.live.get(id)?.becoming(state, now)?;
        let before = self.take_out(id);
        if state.is_live() {
            self.insert(after.clone());
        }
        Some(Change { before, after })
    }

    fn insert(&mut self, record: Record) {
        if let Ok(index) = self.hosts.binary_search_by(|host| host.id.cmp(&record.wolf)) {
            Arc::make_mut(&mut self.hosts[index]).ledger.adopt(record.id.clone(), record.holding());
        }
        self.by_wolf.entry(record.wolf.clone()).or_default().insert(record.id.clone());
        if let Some(expire) = record.expire_time {
            self.expiry.insert((expire, record.id.clone()));
        }
        self.live.insert(record.id.clone(), record);
    }

    fn take_out(&mut self, id: &ReservationId) -> Option<Record> {
        let record = self.live.remove(id)?;
        if let Ok(index) = self.hosts.binary_search_by(|host| host.id.cmp(&record.wolf)) {
            Arc::make_mut(&mut self.hosts[index]).ledger.give_back(id);
        }
        if let Some(ids) = self.by_wolf.get_mut(&record.wolf) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_wolf.remove(&record.wolf);
            }
        }
        if let Some(expire) = record.expire_time {
            self.expiry.remove(&(expire, id.clone()));
        }
        Some(record)
    }
}

//! All tunnels of this broker.

mod drain;
mod sweep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use wolfpack_proto::tunnel::v1::attach_response::Message;
use wolfpack_proto::tunnel::v1::{Ping, Tunnel};
use wolfpack_rpc::ByteBudget;
use wolfpack_runtime::clock::{self, Clock, SystemClock};
use wolfpack_tunnel::protocol::{InstanceLedger, Process, Refused};
use wolfpack_tunnel::splice::Totals;
use wolfpack_types::{
    Endpoint, ExecutionId, Fault, InstanceId, Principal, Reason, SandboxId, WolfId,
};

use super::admission::Admission;
use super::events::{Change, Events, Watch};
use super::limits::Limits;
use super::owners::Owners;
use super::session::{Session, SessionSpec};
use super::waiting::Waiting;
use crate::domain::access::Owner;
use crate::domain::hello::Introduction;

/// The longest an attached instance has to show that it lives, when an older
/// one wants its place; less than an agent waits for its welcome.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile.
const ASKED: u32 = 25;

/// The state of a broker. Handlers hold no locks of it over an await.
pub struct Broker {
    /// Names this process to agents.
    pub id: InstanceId,
    /// Its bounds.
    pub limits: Limits,
    /// Bytes passed on.
    pub totals: Arc<Totals>,
    /// How far ahead all peers together may send.
    pub budget: ByteBudget,
    tunnels: RwLock<Tunnels>,
    owners: Owners,
    waiting: Waiting,
    admission: Admission,
    clock: Arc<dyn Clock>,
    connections: Arc<AtomicU32>,
    draining: CancellationToken,
}

#[derive(Default)]
struct Tunnels {
    by_endpoint: BTreeMap<String, Arc<Session>>,
    by_id: HashMap<String, Arc<Session>>,
    ledger: InstanceLedger,
    swept: Option<Instant>,
    events: Events,
}

/// One connection among all of the broker.
pub(crate) struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Broker {
    /// A broker without tunnels.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::with_clock(limits, Arc::new(SystemClock))
    }

    /// As [`Broker::new`], with a clock of one's own: its wall clock dates
    /// sessions and starts their generations. All else goes by the clock of the
    /// runtime.
    #[must_use]
    pub fn with_clock(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            id: InstanceId::new(),
            admission: Admission::new(limits.attaches_per_second),
            clock,
            budget: ByteBudget::new(limits.byte_budget, limits.stream_window),
            limits,
            totals: Arc::default(),
            tunnels: RwLock::default(),
            owners: Owners::default(),
            waiting: Waiting::default(),
            connections: Arc::default(),
            draining: CancellationToken::new(),
        }
    }

    /// Checks whether an agent may attach now. What one asks for beyond its own
    /// share takes nothing from what all of them share.
    ///
    /// # Errors
    /// `BROKER_DRAINING` or `HANDSHAKES_LIMITED`, both with a hint when to try.
    pub fn may_attach(&self, agent: &Principal) -> Result<(), Fault> {
        self.not_draining()?;
        self.admission.check(agent)
    }

    /// Waits until it is clear that no newer instance holds the endpoint: one
    /// that does is asked whether it lives. At most 5 s.
    ///
    /// # Errors
    /// `SUPERSEDED` when a newer one answers; `HANDSHAKES_LIMITED`, with a hint
    /// when to try, when one is there and silent: its session ends when it stays
    /// so, and then the endpoint is free.
    pub async fn yields_to(&self, introduction: &Introduction) -> Result<(), Fault> {
        let Some(session) = self.find(&introduction.endpoint) else { return Ok(()) };
        let newer = match (introduction.started_micros, session.introduction.started_micros) {
            (Some(own), Some(other)) => own < other,
            _ => false,
        };
        if !newer || session.introduction.instance == introduction.instance {
            return Ok(());
        }
        let asked = clock::instant();
        // As long as a peer has that is asked because it is quiet.
        let pause = (self.limits.heartbeat / 2).min(SIGN_OF_LIFE) / ASKED;
        for _ in 0..ASKED {
            session.send(Message::Ping(Ping { nonce: 0 }));
            tokio::select! {
                () = session.closed().cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            if session.closed().is_cancelled() {
                return Ok(());
            }
            if session.life.heard() > asked {
                tracing::warn!(
                    audit = "tunnel.older_refused",
                    endpoint = %introduction.endpoint,
                    attached_instance = session.introduction.instance,
                    refused_instance = introduction.instance,
                    "an older instance wants to attach beside a newer one"
                );
                return Err(superseded(&introduction.endpoint));
            }
        }
        Err(silent(&introduction.endpoint))
    }

    /// Opens a session. An older session of the endpoint ends: with
    /// `SUPERSEDED` when it is of another instance.
    ///
    /// # Errors
    /// `SUPERSEDED` for an instance that a newer one took over from;
    /// `HANDSHAKES_LIMITED` for one that is older than the one that is attached:
    /// whether that one lives is [`Broker::yields_to`]'s to say; `BROKER_DRAINING`.
    pub fn attach(&self, spec: SessionSpec) -> Result<Arc<Session>, Fault> {
        let endpoint = spec.introduction.endpoint.clone();
        let name = endpoint.to_string();
        let wall = self
            .clock
            .now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let now = clock::instant();
        let mut tunnels = self.tunnels.write();
        // Under the lock that a drain takes to see who is there: who is not among
        // those would never hear of it.
        self.not_draining()?;
        // A session that is closed is on its way out, and holds nothing.
        let there = tunnels.by_endpoint.get(&name);
        let attached = there.is_some_and(|session| !session.closed().is_cancelled());
        let process = Process {
            instance: &spec.introduction.instance,
            started_micros: spec.introduction.started_micros,
        };
        let admitted =
            tunnels.ledger.admit(&endpoint, process, attached, wall, now).map_err(|refused| {
                match refused {
                    Refused::Older => silent(&endpoint),
                    Refused::Superseded => superseded(&endpoint),
                }
            })?;
        let session = Arc::new(Session::new(spec, admitted.generation, &self.limits));
        let owner = self.owner_of(&session);
        let old = tunnels.by_endpoint.insert(name, session.clone());
        tunnels.by_id.insert(session.id.to_string(), session.clone());
        if let Some(old) = &old {
            tunnels.by_id.remove(old.id.as_str());
            let gone = old.tunnel(owner.name());
            tunnels.events.push(Change::Detached, gone, owner.clone());
        }
        let tunnel = session.tunnel(owner.name());
        tunnels.events.push(Change::Attached, tunnel, owner);
        drop(tunnels);
        if let Some(old) = old {
            if admitted.takeover {
                tracing::warn!(
                    audit = "tunnel.superseded",
                    %endpoint,
                    old_instance = old.introduction.instance,
                    new_instance = session.introduction.instance,
                    generation = session.generation,
                    "a newer instance took over"
                );
                old.close(&superseded(&endpoint));
            } else {
                old.close(&Fault::new(Reason::TunnelLost, "the same instance attached again"));
            }
        }
        self.waiting.tell(&endpoint);
        tracing::info!(
            audit = "tunnel.attached",
            %endpoint,
            session = %session.id,
            instance = session.introduction.instance,
            generation = session.generation,
            version = session.introduction.version,
            "an agent attached"
        );
        Ok(session)
    }

    /// Ends a session and forgets it; does nothing when another one took its
    /// place.
    pub fn detach(&self, session: &Arc<Session>, fault: &Fault) {
        session.close(fault);
        let owner = self.owner_of(session);
        let name = session.endpoint().to_string();
        let mut tunnels = self.tunnels.write();
        if tunnels.by_id.remove(session.id.as_str()).is_none() {
            return;
        }
        if let (Endpoint::Sandbox(sandbox), Some((project, _))) =
            (session.endpoint(), &session.sandbox)
        {
            self.owners.remember(sandbox, project);
        }
        // Compared and removed under one lock: a fresh session is never lost.
        if tunnels.by_endpoint.get(&name).is_some_and(|present| Arc::ptr_eq(present, session)) {
            tunnels.by_endpoint.remove(&name);
            let tunnel = session.tunnel(owner.name());
            tunnels.events.push(Change::Detached, tunnel, owner);
        }
        drop(tunnels);
        tracing::info!(
            audit = "tunnel.detached",
            endpoint = %session.endpoint(), session = %session.id, reason = %fault.reason,
            "detached: {}", fault.message
        );
    }

    /// The session a Carry names.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.tunnels.read().by_id.get(id).cloned()
    }

    /// The session of an endpoint.
    #[must_use]
    pub fn find(&self, endpoint: &Endpoint) -> Option<Arc<Session>> {
        self.tunnels.read().by_endpoint.get(&endpoint.to_string()).cloned()
    }

    /// The session of an endpoint, waited for until `deadline`, as long as it is
    /// `allowed`: that is asked again when whose the endpoint is may have changed.
    ///
    /// # Errors
    /// `DIAL_TIMEOUT`, `DIALS_LIMITED` when too many wait, `BROKER_DRAINING`, and
    /// those of `allowed`.
    pub async fn wait_for(
        &self,
        endpoint: &Endpoint,
        deadline: tokio::time::Instant,
        allowed: &(dyn Fn() -> Result<(), Fault> + Send + Sync),
    ) -> Result<Arc<Session>, Fault> {
        if let Some(session) = self.find(endpoint) {
            return Ok(session);
        }
        let place =
            self.waiting.enter(endpoint, self.limits.pending_dials, self.limits.waiting_dials)?;
        loop {
            let news = place.news.notified();
            tokio::pin!(news);
            // Listen before looking, or what comes in between is missed.
            news.as_mut().enable();
            if let Some(session) = self.find(endpoint) {
                return Ok(session);
            }
            allowed()?;
            tokio::select! {
                () = &mut news => {}
                () = self.draining.cancelled() => return Err(drain::leaving()),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Fault::new(Reason::DialTimeout, "the endpoint did not attach in time; try again later")
                        .about(endpoint.to_string()));
                }
            }
        }
    }

    /// Counts a connection among all.
    pub(crate) fn count(&self) -> Result<Counted, Fault> {
        let most = self.limits.max_connections;
        self.connections
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
                (count < most).then_some(count + 1)
            })
            .map(|_| Counted(self.connections.clone()))
            .map_err(|_| {
                Fault::new(
                    Reason::DialsLimited,
                    "the broker has as many connections as it takes; try again later",
                )
            })
    }

    /// Whose an endpoint is. A sandbox that is away is still known for a while.
    #[must_use]
    pub fn owner(&self, endpoint: &Endpoint) -> Owner {
        match endpoint {
            Endpoint::Wolf(wolf) => self.owners.of_wolf(wolf),
            Endpoint::Sandbox(sandbox) => match self.find(endpoint) {
                Some(session) => self.owner_of(&session),
                None => self.owners.of_sandbox(sandbox),
            },
        }
    }

    fn owner_of(&self, session: &Session) -> Owner {
        match (&session.sandbox, session.endpoint()) {
            (Some((project, _)), _) => Owner::Project(project.clone()),
            (None, Endpoint::Wolf(wolf)) => self.owners.of_wolf(wolf),
            (None, Endpoint::Sandbox(_)) => Owner::Unknown,
        }
    }

    /// Learns whose a wolf is; `None` when it is gone.
    pub fn set_owner(&self, wolf: &WolfId, owner: Option<Owner>) {
        let owner = self.owners.set_wolf(wolf, owner);
        self.waiting.tell(&Endpoint::Wolf(wolf.clone()));
        let Some(owner) = owner else { return };
        // Who may see the tunnel changed: tell it again to those who now may.
        let mut tunnels = self.tunnels.write();
        if let Some(session) = tunnels.by_endpoint.get(&wolf.name()).cloned() {
            let tunnel = session.tunnel(owner.name());
            tunnels.events.push(Change::Attached, tunnel, owner);
        }
    }

    /// Forgets wolves that are not among `all`, as a whole snapshot came.
    pub fn keep_owners(&self, all: &HashSet<WolfId>) {
        for gone in self.owners.keep_wolves(all) {
            self.waiting.tell(&Endpoint::Wolf(gone));
        }
    }

    /// Ends the session of an endpoint, or only the one that is named; its id,
    /// when there was one. The agent is told `fault`, and so are connections.
    pub fn close(&self, endpoint: &Endpoint, only: Option<&str>, fault: &Fault) -> Option<String> {
        let session = self
            .find(endpoint)
            .filter(|session| only.is_none_or(|only| only == session.id.as_str()))?;
        self.detach(&session, fault);
        Some(session.id.to_string())
    }

    /// The tokens of a sandbox are void: its tunnel ends. A boot that is named
    /// ends only the session of that boot.
    pub fn revoke(&self, sandbox: &SandboxId, execution: Option<&ExecutionId>) {
        if let Some(session) = self.find(&Endpoint::Sandbox(sandbox.clone())) {
            let boot = session.sandbox.as_ref().map(|(_, boot)| boot);
            if execution.is_none() || execution == boot {
                let fault = Fault::new(
                    Reason::SandboxTokenRevoked,
                    "the token of this sandbox was revoked",
                );
                self.detach(&session, &fault);
            }
        }
        // Another boot may come, but not of a sandbox that is gone. After the
        // detach, which remembers it.
        if execution.is_none() {
            self.owners.forget(sandbox);
            self.waiting.tell(&Endpoint::Sandbox(sandbox.clone()));
        }
    }

    /// Every tunnel with its owner after `after`, by endpoint, at most `limit`.
    #[must_use]
    pub fn list(
        &self,
        after: Option<&str>,
        limit: usize,
        see: impl Fn(&Owner) -> bool,
    ) -> Vec<Tunnel> {
        use std::ops::Bound;
        let tunnels = self.tunnels.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        tunnels
            .by_endpoint
            .range::<str, _>((from, Bound::Unbounded))
            .filter_map(|(_, session)| {
                let owner = self.owner_of(session);
                see(&owner).then(|| session.tunnel(owner.name()))
            })
            .take(limit)
            .collect()
    }

    /// A snapshot and all that follows it.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let tunnels = self.tunnels.read();
        let all = tunnels
            .by_endpoint
            .values()
            .map(|session| {
                let owner = self.owner_of(session);
                (session.tunnel(owner.name()), owner)
            })
            .collect();
        tunnels.events.watch(all)
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        self.tunnels.read().by_endpoint.values().cloned().collect()
    }

    /// Tunnels, parked streams, connections, and dials that wait, now.
    #[must_use]
    pub fn counts(&self) -> [u64; 4] {
        [self.attached(), self.parked(), self.connected(), self.waiting()]
    }

    /// Tunnels that are attached.
    #[must_use]
    pub fn attached(&self) -> u64 {
        self.tunnels.read().by_endpoint.len() as u64
    }

    /// Streams that are parked; looks at each session.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.sum(Session::parked)
    }

    /// Connections open or being opened.
    #[must_use]
    pub fn connected(&self) -> u64 {
        u64::from(self.connections.load(Ordering::SeqCst))
    }

    /// Dials that wait for an agent or a stream; looks at each session.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.sum(Session::pending) + self.waiting.len() as u64
    }

    fn sum(&self, of: impl Fn(&Session) -> usize) -> u64 {
        self.sessions().iter().map(|session| of(session) as u64).sum()
    }
}

/// Of an older instance, while it is not known whether the newer one lives.
fn silent(endpoint: &Endpoint) -> Fault {
    Fault::new(
        Reason::HandshakesLimited,
        "another instance of this agent is attached and silent; try again once it is given up",
    )
    .about(endpoint.to_string())
    .retry_in(Duration::from_secs(1))
}

fn superseded(endpoint: &Endpoint) -> Fault {
    Fault::new(Reason::Superseded, "a newer instance of this agent took over; this one must stop")
        .about(endpoint.to_string())
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;

//! One agent that is attached.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wolfpack_proto::tunnel::v1::attach_response::Message;
use wolfpack_proto::tunnel::v1::{AttachResponse, CancelDial, Dial, Tunnel, TunnelLimits};
use wolfpack_runtime::clock;
use wolfpack_tunnel::life::LifeMark;
use wolfpack_tunnel::protocol::{DialId, DialTable, PoolSize};
use wolfpack_tunnel::splice::{CarryStream, Direction, Link, LinkEnd, Throttle, WeakLink};
use wolfpack_types::{Endpoint, ExecutionId, Fault, ProjectId, Reason, SessionId, Target};

use super::limits::Limits;
use crate::domain::hello::Introduction;

/// Control messages that wait for an agent. With no room for more a dial is
/// refused, that one was taken back need not be said, and all else ends the
/// session.
pub(crate) const CONTROL_QUEUE: usize = 256;

/// Parked streams of one agent; more are refused.
const MAX_PARKED: usize = 2 * PoolSize::MOST;

type Answer = Result<CarryStream, Fault>;

/// What a session is made of.
#[derive(Debug)]
pub struct SessionSpec {
    /// What the agent said, checked.
    pub introduction: Introduction,
    /// The project and the boot of a sandbox, from its token.
    pub sandbox: Option<(ProjectId, ExecutionId)>,
    /// Where control messages go; boxed, as a queue has room for 32 from the
    /// start, and most queues are empty all the time.
    pub control: mpsc::Sender<Box<AttachResponse>>,
}

/// An attached agent: what it offers, what it has parked, what is open.
#[derive(Debug)]
pub struct Session {
    /// Names the session in every Carry.
    pub id: SessionId,
    /// Grows with each instance of the endpoint.
    pub generation: i64,
    /// Who the agent is.
    pub introduction: Introduction,
    /// The project and the boot of a sandbox, from its token.
    pub sandbox: Option<(ProjectId, ExecutionId)>,
    /// When it was last heard of.
    pub life: LifeMark,
    attached: SystemTime,
    control: mpsc::Sender<Box<AttachResponse>>,
    parking: Mutex<Parking>,
    dials: Mutex<DialTable<oneshot::Sender<Answer>>>,
    links: Mutex<Links>,
    next_link: AtomicU64,
    /// There may be something to sweep.
    stirred: AtomicBool,
    connections: AtomicU32,
    /// The most of them.
    max_connections: u32,
    /// Dials, whatever becomes of them.
    dial_rate: DefaultDirectRateLimiter,
    limits: TunnelLimits,
    throttle: Option<Arc<Throttle>>,
    fault: Mutex<Option<Fault>>,
    closed: CancellationToken,
}

/// Connections that are open, and what those that are over have passed.
#[derive(Debug, Default)]
struct Links {
    open: HashMap<u64, WeakLink>,
    up: u64,
    down: u64,
}

#[derive(Debug)]
struct Parking {
    streams: Vec<CarryStream>,
    size: PoolSize,
}

/// The right to one connection of an agent; given back when it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Session>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    pub(super) fn new(spec: SessionSpec, generation: i64, limits: &Limits) -> Self {
        let max_connections = spec.introduction.max_connections.min(limits.connections_per_tunnel);
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let dial_rate = Quota::per_second(at_least_one(limits.dials_per_second))
            .allow_burst(at_least_one(limits.dials_burst));
        Self {
            id: SessionId::new(),
            generation,
            introduction: spec.introduction,
            sandbox: spec.sandbox,
            life: LifeMark::now(),
            attached: clock::now(),
            control: spec.control,
            parking: Mutex::new(Parking {
                streams: Vec::with_capacity(limits.parked_target as usize),
                size: PoolSize::new(limits.parked_target as usize).patient(),
            }),
            dials: Mutex::new(DialTable::new(limits.pending_dials)),
            links: Mutex::default(),
            next_link: AtomicU64::new(0),
            stirred: AtomicBool::new(false),
            connections: AtomicU32::new(0),
            max_connections,
            dial_rate: RateLimiter::direct(dial_rate),
            limits: TunnelLimits {
                max_connections,
                dials_per_second: limits.dials_per_second,
                bytes_per_second: limits.bytes_per_second,
            },
            throttle: NonZeroU64::new(limits.bytes_per_second)
                .map(|rate| Arc::new(Throttle::new(rate))),
            fault: Mutex::new(None),
            closed: CancellationToken::new(),
        }
    }

    /// Its endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.introduction.endpoint
    }

    /// Whether it offers a target.
    #[must_use]
    pub fn offers(&self, target: &Target) -> bool {
        self.introduction.targets.iter().any(|offer| target.is_offered_by(offer))
    }

    /// Cancelled once the session is over.
    #[must_use]
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Why it is over.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.lock().clone()
    }

    /// Ends the session: the agent is told `fault`, dials that wait look for
    /// another session, parked streams and open connections end. The first
    /// call counts.
    pub fn close(&self, fault: &Fault) {
        {
            let mut slot = self.fault.lock();
            if slot.is_some() {
                return;
            }
            *slot = Some(fault.clone());
        }
        self.closed.cancel();
        for stream in std::mem::take(&mut self.parking.lock().streams) {
            stream.end(fault.clone());
        }
        self.dials.lock().drain();
        self.abort_connections(&lost_to(fault));
    }

    /// Sends a control message; a session whose control stream does not drain
    /// is over.
    pub fn send(&self, message: Message) {
        if !self.tell(message) {
            self.close(&Fault::new(Reason::TunnelLost, "the control stream does not drain"));
        }
    }

    /// Sends a control message, if there is room for it.
    fn tell(&self, message: Message) -> bool {
        self.control.try_send(Box::new(AttachResponse { message: Some(message) })).is_ok()
    }

    /// Takes a place for one connection, and counts the dial.
    ///
    /// # Errors
    /// `DIALS_LIMITED` when there are as many as the agent or this broker takes,
    /// or when dials come faster than they may; then with a hint when to try.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Fault> {
        let most = self.max_connections;
        let permit = self
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < most).then_some(count + 1)
            })
            .map(|_| Permit(self.clone()))
            .map_err(|_| {
                let words =
                    format!("the tunnel has {most} connections, its most; end some, or try again");
                Fault::new(Reason::DialsLimited, words).about(self.endpoint().to_string())
            })?;
        self.dial_rate.check().map_err(|early| {
            let words = format!(
                "the tunnel takes {} dials a second; slow down, or keep connections open",
                self.limits.dials_per_second
            );
            Fault::new(Reason::DialsLimited, words)
                .about(self.endpoint().to_string())
                .retry_in(early.wait_time_from(DefaultClock::default().now()))
        })?;
        Ok(permit)
    }

    /// What its connections share, where they have a rate.
    #[must_use]
    pub fn throttle(&self) -> Option<Arc<Throttle>> {
        self.throttle.clone()
    }

    /// Keeps a stream for a dial to come.
    ///
    /// # Errors
    /// `DIALS_LIMITED` when far too many are parked, or the fault of a session
    /// that is over.
    pub fn park(&self, mut stream: CarryStream) -> Result<(), Fault> {
        stream.rest();
        let mut parking = self.parking.lock();
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        if parking.streams.len() >= MAX_PARKED {
            parking.streams.retain(|stream| !stream.is_gone());
        }
        if parking.streams.len() >= MAX_PARKED {
            return Err(Fault::new(
                Reason::DialsLimited,
                "too many streams are parked; park fewer",
            ));
        }
        parking.streams.push(stream);
        self.stir();
        Ok(())
    }

    /// Takes a parked stream for a dial, the youngest first: it is the least
    /// likely to be dying.
    pub fn take_parked(&self) -> Option<CarryStream> {
        let mut parking = self.parking.lock();
        parking.size.used(clock::instant());
        self.stir();
        while let Some(stream) = parking.streams.pop() {
            if !stream.is_gone() {
                return Some(stream);
            }
        }
        None
    }

    /// To be called now and then: ends the streams that are parked beyond what
    /// is wanted, the oldest first (only the broker ends parked streams), dials
    /// whose time is over, and connections that nobody is left for. Does not look
    /// where nothing was done since the last time and nothing goes on.
    pub(crate) fn sweep(&self) {
        if !self.stirred.swap(false, Ordering::Relaxed) {
            return;
        }
        let now = clock::instant();
        let mut parking = self.parking.lock();
        parking.streams.retain(|stream| !stream.is_gone());
        let wanted = parking.size.wanted(now);
        let surplus = parking.streams.len().saturating_sub(wanted);
        let retired: Vec<CarryStream> = parking.streams.drain(..surplus).collect();
        let at_rest = parking.size.at_rest();
        drop(parking);
        drop(retired);
        let mut dials = self.dials.lock();
        dials.expire(now);
        let none_wait = dials.is_empty();
        drop(dials);
        let links: Vec<WeakLink> = self.links.lock().open.values().cloned().collect();
        if !(at_rest && none_wait && links.is_empty()) {
            self.stir();
        }
        for link in links {
            link.check(now);
        }
    }

    /// Has the next sweep look; to be called after what it should see.
    fn stir(&self) {
        self.stirred.store(true, Ordering::Relaxed);
    }

    /// Asks the agent for a stream.
    ///
    /// # Errors
    /// `DIALS_LIMITED` when as many dials wait as may, or the agent does not keep
    /// up.
    pub fn ask(self: &Arc<Self>, lifetime: std::time::Duration) -> Result<AskedDial, Fault> {
        let id = DialId::from_random(rand::random());
        let (sender, answer) = oneshot::channel();
        let now = clock::instant();
        self.dials.lock().insert(id, now, now + lifetime, sender).map_err(|_| {
            Fault::new(
                Reason::DialsLimited,
                "too many dials to this agent are pending; try again later",
            )
            .about(self.endpoint().to_string())
        })?;
        self.stir();
        // From here on it is taken back when it is dropped.
        let asked = AskedDial { session: self.clone(), id, answer };
        if self.tell(Message::Dial(Dial { dial_id: bytes_of(&id) })) {
            Ok(asked)
        } else {
            Err(Fault::new(
                Reason::DialsLimited,
                "the agent does not keep up with its dials; try again later",
            )
            .about(self.endpoint().to_string()))
        }
    }

    /// Gives a stream to the dial that asked for it.
    ///
    /// # Errors
    /// `DIAL_UNKNOWN` for an id that is forged, used, late or of another
    /// session.
    pub fn answer(&self, dial_id: &[u8], stream: CarryStream) -> Result<(), Fault> {
        let unknown = || {
            Fault::new(
                Reason::DialUnknown,
                "no dial waits for this stream; it was taken back, or its time is over",
            )
        };
        let waiting = self.dials.lock().take(dial_id, clock::instant()).ok_or_else(unknown)?;
        waiting.send(Ok(stream)).map_err(|_| unknown())
    }

    /// The agent will not open a stream.
    pub fn refuse(&self, dial_id: &[u8], fault: Fault) {
        if let Some(waiting) = self.dials.lock().take(dial_id, clock::instant()) {
            let _ = waiting.send(Err(fault));
        }
    }

    /// Keeps a connection in mind, to end it with the session; gives its key.
    pub fn remember(&self, link: &WeakLink) -> u64 {
        let key = self.next_link.fetch_add(1, Ordering::Relaxed);
        self.links.lock().open.insert(key, link.clone());
        self.stir();
        if let Some(fault) = self.fault() {
            // It closed in between.
            link.abort(lost_to(&fault));
        }
        key
    }

    /// A connection is over.
    pub fn forget(&self, key: u64, end: &LinkEnd) {
        let mut links = self.links.lock();
        links.open.remove(&key);
        links.up += end.up;
        links.down += end.down;
    }

    /// How many connections are kept in mind: those that are open.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.links.lock().open.len()
    }

    /// Ends every connection, and not the session.
    pub(crate) fn abort_connections(&self, fault: &Fault) {
        // Dropping the last of a link forgets it here: never under the lock.
        let links: Vec<WeakLink> = self.links.lock().open.values().cloned().collect();
        for link in links {
            link.abort(fault.clone());
        }
    }

    /// Bytes that connections passed, up and down: of those that are over and
    /// those that are open.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let links = self.links.lock();
        let open: Vec<Link> = links.open.values().filter_map(WeakLink::upgrade).collect();
        let over = (links.up, links.down);
        drop(links);
        open.iter().fold(over, |(up, down), link| {
            (up + link.bytes(Direction::Up), down + link.bytes(Direction::Down))
        })
    }

    /// Connections open or being opened.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Streams parked now.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parking.lock().streams.iter().filter(|stream| !stream.is_gone()).count()
    }

    /// Dials that wait for a stream.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.dials.lock().len()
    }

    /// The session as callers see it.
    #[must_use]
    pub fn tunnel(&self, project: String) -> Tunnel {
        let (bytes_up, bytes_down) = self.bytes();
        Tunnel {
            endpoint: self.endpoint().to_string(),
            session_id: self.id.to_string(),
            instance_id: self.introduction.instance.clone(),
            generation: self.generation,
            project,
            execution_id: self
                .sandbox
                .as_ref()
                .map(|(_, execution)| execution.to_string())
                .unwrap_or_default(),
            targets: self.introduction.targets.clone(),
            agent_version: self.introduction.version.clone(),
            attach_time: Some(self.attached.into()),
            connections: self.connections(),
            parked: u32::try_from(self.parked()).unwrap_or(u32::MAX),
            bytes_up,
            bytes_down,
            limits: Some(self.limits),
        }
    }
}

/// A dial that the agent was asked to open a stream for. Dropping it before
/// the answer takes it back, and the agent is told.
#[derive(Debug)]
pub struct AskedDial {
    session: Arc<Session>,
    id: DialId,
    answer: oneshot::Receiver<Answer>,
}

impl AskedDial {
    /// Waits for the stream; the caller bounds the time. `None` when the dial
    /// is over: its time ran out, or the session did.
    pub async fn stream(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for AskedDial {
    fn drop(&mut self) {
        if self.session.dials.lock().take(self.id.as_bytes(), clock::instant()).is_some() {
            // An agent that is not told learns it when its stream is refused.
            self.session.tell(Message::CancelDial(CancelDial { dial_id: bytes_of(&self.id) }));
        }
    }
}

/// What the end of a session is to its connections.
fn lost_to(session: &Fault) -> Fault {
    match session.reason {
        Reason::BrokerDraining => session.clone(),
        Reason::TunnelClosed => Fault::new(
            Reason::TunnelClosed,
            "an operator closed the tunnel of the connection; dial again once its agent is back",
        ),
        _ => Fault::new(Reason::TunnelLost, "the tunnel of the connection is gone; dial again"),
    }
}

fn bytes_of(id: &DialId) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(id.as_bytes())
}

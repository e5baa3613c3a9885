//! Which exposures there are.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;
use wolfpack_types::{ExposureId, Fault, Reason};

use super::failure::{Failure, Failures};
use super::listener;
use crate::domain::exposure::{ExposureRules, ExposureSpec, Origin};
use crate::domain::target::not_offered;
use crate::metrics::Metrics;
use crate::state::Broker;

/// What came of asking for an exposure.
pub enum Created {
    /// It was made for this.
    Now(Arc<Exposure>),
    /// The same request had made it.
    Before(Arc<Exposure>),
}

/// A port of the broker, its bounds and its counts.
pub struct Exposure {
    /// What it leads to.
    pub spec: ExposureSpec,
    /// Where it listens.
    pub address: SocketAddr,
    /// Since when.
    pub created: SystemTime,
    pub(super) rate: DefaultDirectRateLimiter,
    pub(super) connections: Arc<AtomicU32>,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failures: Failures,
    /// Cancelled when no more are let in.
    pub(super) closed: CancellationToken,
    /// Cancelled when the connections end, too.
    pub(super) ended: CancellationToken,
}

impl Exposure {
    fn new(spec: ExposureSpec, address: SocketAddr, closed: CancellationToken) -> Self {
        let rate = NonZeroU32::new(spec.limits.connections_per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            rate: RateLimiter::direct(Quota::per_second(rate)),
            connections: Arc::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failures: Failures::default(),
            closed,
            ended: CancellationToken::new(),
            created: SystemTime::now(),
            spec,
            address,
        }
    }

    /// Cancelled when nobody is let in any more.
    #[must_use]
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Connections open or being opened.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections that were let in since it is there, whatever became of them.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections that were reset as they came: over a bound, or the endpoint
    /// belongs to another now.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Of those that were let in, how many did not reach the target or broke, and
    /// the last of these.
    #[must_use]
    pub fn failures(&self) -> (u64, Option<Failure>) {
        self.failures.snapshot()
    }
}

/// The exposures of a broker.
pub struct Exposures {
    /// What may be asked for; `None` for nothing.
    pub rules: Option<ExposureRules>,
    pub(super) broker: Arc<Broker>,
    pub(super) metrics: Arc<Metrics>,
    /// Whose log it is that their tasks write.
    pub(super) dispatch: Dispatch,
    open: Mutex<BTreeMap<ExposureId, Arc<Exposure>>>,
    creating: Mutex<()>,
    /// The runtimes of the data plane, once they are there.
    plane: OnceLock<Vec<Handle>>,
    closed: CancellationToken,
}

impl Exposures {
    /// None yet; they end with `stop`, and log to `dispatch`.
    #[must_use]
    pub fn new(
        rules: Option<ExposureRules>,
        broker: Arc<Broker>,
        metrics: Arc<Metrics>,
        dispatch: Dispatch,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            rules,
            broker,
            metrics,
            dispatch,
            open: Mutex::default(),
            creating: Mutex::default(),
            plane: OnceLock::new(),
            closed: stop.child_token(),
        }
    }

    /// Tells on which runtimes to accept; the first call counts.
    pub(crate) fn set_plane(&self, plane: Vec<Handle>) {
        let _ = self.plane.set(plane);
    }

    /// Listens. The port of `spec.listen` may be 0 for any that is free.
    ///
    /// # Errors
    /// When the address is not to be had, or the broker is stopping.
    pub fn open(self: &Arc<Self>, spec: ExposureSpec) -> io::Result<Arc<Exposure>> {
        let plane = self.plane.get().filter(|_| !self.closed.is_cancelled());
        let plane = plane.ok_or_else(|| io::Error::other("the broker is not running"))?;
        let socket = listener::listen(spec.listen)?;
        let address = socket.local_addr()?;
        let exposure = Arc::new(Exposure::new(spec, address, self.closed.child_token()));
        let mut sockets = Vec::with_capacity(plane.len());
        for _ in 1..plane.len() {
            sockets.push(socket.try_clone()?);
        }
        sockets.push(socket);
        self.open.lock().insert(exposure.spec.id.clone(), exposure.clone());
        for (runtime, socket) in plane.iter().zip(sockets) {
            let listening = listener::run(self.clone(), exposure.clone(), socket);
            runtime.spawn(listening.with_subscriber(self.dispatch.clone()));
        }
        tracing::info!(
            exposure = %exposure.spec.id, %address,
            endpoint = %exposure.spec.endpoint, dialed = %exposure.spec.target,
            "a port is exposed"
        );
        Ok(exposure)
    }

    /// Opens one that was asked for, at the first of these ports that is free;
    /// one that was asked for by the same request id is given again.
    ///
    /// # Errors
    /// `EXPOSURES_LIMITED` when as many are there as `rules` allow, over all or of
    /// the owner, or when no port is free; `TARGET_FORBIDDEN` when the agent is
    /// attached and does not offer the target; `REQUEST_ID_REUSED`.
    pub fn create(
        self: &Arc<Self>,
        rules: &ExposureRules,
        ports: impl Iterator<Item = u16>,
        spec: &ExposureSpec,
    ) -> Result<Created, Fault> {
        // Looked at and taken in by one at a time.
        let _one = self.creating.lock();
        if let Some(before) = self.asked_before(spec)? {
            return Ok(Created::Before(before));
        }
        // One that is away may offer it when it comes.
        if let Some(session) = self.broker.find(&spec.endpoint)
            && !session.offers(&spec.target)
        {
            return Err(not_offered(&spec.endpoint, &spec.target));
        }
        self.fits(rules, spec)?;
        let (mut last, mut tried) = (None, Vec::new());
        for port in ports {
            tried.push(port);
            let mut spec = spec.clone();
            spec.listen.set_port(port);
            match self.open(spec) {
                Ok(exposure) => return Ok(Created::Now(exposure)),
                Err(error) => last = Some(error),
            }
        }
        let words = match tried[..] {
            [port] if port != 0 => format!(
                "port {port} of the broker is in use; ask for another one, or for none to get any that is free"
            ),
            _ => "no port of the broker is free for this; delete an exposure".to_owned(),
        };
        let fault = Fault::new(Reason::ExposuresLimited, words);
        Err(match last {
            Some(error) => fault.caused_by(error),
            None => fault,
        })
    }

    /// The exposure that the same request made.
    fn asked_before(&self, spec: &ExposureSpec) -> Result<Option<Arc<Exposure>>, Fault> {
        let Some(origin) = spec.origin.as_ref().filter(|origin| !origin.request_id.is_empty())
        else {
            return Ok(None);
        };
        let same = |exposure: &&Arc<Exposure>| {
            exposure.spec.origin.as_ref().is_some_and(|other| {
                other.request_id == origin.request_id && other.creator == origin.creator
            })
        };
        let Some(before) = self.open.lock().values().find(same).cloned() else { return Ok(None) };
        if before.spec.endpoint == spec.endpoint && before.spec.target == spec.target {
            return Ok(Some(before));
        }
        Err(Fault::new(
            Reason::RequestIdReused,
            "this request id made another exposure; use a fresh one for another request",
        ))
    }

    fn fits(&self, rules: &ExposureRules, spec: &ExposureSpec) -> Result<(), Fault> {
        let open = self.open.lock();
        let asked = || open.values().filter_map(|exposure| exposure.spec.origin.as_ref());
        let owner = spec.origin.as_ref().map(|origin| &origin.owner);
        let own = asked().filter(|origin| Some(&origin.owner) == owner).count();
        if asked().count() >= rules.max || own >= rules.max_per_project {
            return Err(Fault::new(
                Reason::ExposuresLimited,
                format!(
                    "{own} exposures of this project are there, and a project may have {}, all together {}; delete one",
                    rules.max_per_project, rules.max
                ),
            ));
        }
        Ok(())
    }

    /// The exposure of a name.
    #[must_use]
    pub fn get(&self, id: &ExposureId) -> Option<Arc<Exposure>> {
        self.open.lock().get(id).cloned()
    }

    /// All of them, by id, after `after`.
    #[must_use]
    pub fn list(&self, after: Option<&str>) -> Vec<Arc<Exposure>> {
        let open = self.open.lock();
        open.values()
            .filter(|exposure| after.is_none_or(|after| exposure.spec.id.as_str() > after))
            .cloned()
            .collect()
    }

    /// Ends an exposure and its connections. Does nothing when it has ended.
    pub fn end(&self, id: &ExposureId) {
        let Some(exposure) = self.open.lock().remove(id) else { return };
        exposure.closed.cancel();
        exposure.ended.cancel();
        tracing::info!(exposure = %id, address = %exposure.address, "an exposure ended");
    }

    /// Whether the endpoint is still whose it was when `exposure` was asked for;
    /// one of the configuration is for whichever owner. One that is gone is not:
    /// nobody knows whose it would be.
    pub(super) fn owner_stays(&self, exposure: &Exposure) -> bool {
        let spec = &exposure.spec;
        let same = |origin: &Origin| self.broker.owner(&spec.endpoint) == origin.owner;
        spec.origin.as_ref().is_none_or(same)
    }

    /// Lets no more connections in; those that run go on.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For gauges, which must not keep the state.
    #[must_use]
    pub fn downgrade(self: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(self)
    }
}

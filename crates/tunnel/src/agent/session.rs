//! One session of an agent at a broker: the control stream and the streams it
//! keeps parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use wolfpack_proto::tunnel::v1::agent_tunnel_service_client::AgentTunnelServiceClient;
use wolfpack_proto::tunnel::v1::{
    AttachRequest, AttachResponse, DialFailed, Hello, Ping, Pong, Welcome, attach_request,
    attach_response,
};
use wolfpack_rpc::RpcChannel;
use wolfpack_rpc::error::from_status;
use wolfpack_runtime::random::Jitter;
use wolfpack_runtime::{Supervisor, clock};
use wolfpack_types::{Fault, Reason};

use super::AgentTunnelConfig;
use super::attach::{Attacher, Leaving};
use super::carry::{Ended, carry};
use super::dials::{Dials, PendingDial};
use super::exports::Exports;
use crate::life::LifeMark;
use crate::protocol::{Heartbeat, Life, PoolSize, drain};

/// How long the broker may take to answer `Hello`.
const WELCOME: Duration = Duration::from_secs(10);
/// Control messages that wait to be sent; more end the session.
const CONTROL_QUEUE: usize = 256;
/// Streams in a row that a broker may not know the session of, before the
/// session is given up: a balancer that spreads streams over brokers sends every
/// other one astray, and the session is good for those that arrive.
const MOST_ASTRAY: usize = 32;
/// How long parking pauses after the broker refused a stream.
const PARK_PAUSE: Duration = Duration::from_millis(250);

/// What the streams of a session share.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) channel: RpcChannel,
    pub(super) exports: Arc<Exports>,
    pub(super) life: LifeMark,
    pub(super) connections: Arc<AtomicU32>,
    pub(super) max_connections: u32,
    dials: Dials,
    supervisor: Supervisor,
    jitter: Jitter,
    pool: Mutex<PoolSize>,
    parked: Arc<AtomicUsize>,
    paused_until: Mutex<Option<Instant>>,
    /// Streams in a row that landed where the session is not known.
    astray: AtomicUsize,
    /// Streams that were begun, and how many of these had been when the last one
    /// arrived.
    begun: AtomicUsize,
    begun_at_arrival: AtomicUsize,
    /// Streams of which it is not known yet where they land.
    opening: AtomicUsize,
    /// Something changed that the pool should look at.
    changed: Notify,
    /// Cancelled when the session is over or leaves; ends what is parked.
    token: CancellationToken,
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// The supervisor stops.
    Stopped,
    /// The broker ended it or cannot be reached.
    Lost(Fault),
}

impl Session {
    /// A stream that was counted as parked when it was spawned, until the guard is
    /// dropped.
    pub(super) fn parked(self: &Arc<Self>) -> ParkedCount {
        ParkedCount(self.clone())
    }

    /// Counts a stream as parked that is so once more.
    pub(super) fn park_again(self: &Arc<Self>) -> ParkedCount {
        self.parked.fetch_add(1, Ordering::Relaxed);
        self.parked()
    }

    /// A stream, which is not counted as parked any more, got work.
    pub(super) fn used(&self) {
        let now = clock::instant();
        let mut pool = self.pool.lock();
        pool.used(now);
        if self.parked.load(Ordering::Relaxed) < pool.wanted(now) {
            self.changed.notify_one();
        }
    }

    /// Counts a stream as one that may land anywhere until the guard is dropped.
    pub(super) fn opening(&self) -> Opening<'_> {
        self.opening.fetch_add(1, Ordering::Relaxed);
        Opening(&self.opening)
    }

    /// A stream landed where it should.
    pub(super) fn arrived(&self) {
        self.begun_at_arrival.store(self.begun.load(Ordering::Relaxed), Ordering::Relaxed);
        self.astray.store(0, Ordering::Relaxed);
    }

    /// A stream, before which `earlier` were begun, landed where the session is not
    /// known. As long as the control stream is there, its broker knows it; but not
    /// for ever. Of many that are opened at once those that are refused may all be
    /// heard of first, or all of them last: whoever was begun before one arrived says
    /// nothing of the time since.
    fn astray(&self, earlier: usize) {
        if earlier < self.begun_at_arrival.load(Ordering::Relaxed) {
            return;
        }
        let in_a_row = self.astray.fetch_add(1, Ordering::Relaxed) + 1;
        if in_a_row >= MOST_ASTRAY + self.opening.load(Ordering::Relaxed) {
            self.token.cancel();
        }
    }

    /// Opens streams until as many are parked as should be.
    fn top_up(self: &Arc<Self>) {
        let now = clock::instant();
        if self.token.is_cancelled() || self.paused_until.lock().is_some_and(|until| until > now) {
            return;
        }
        let wanted = self.pool.lock().wanted(now);
        for _ in self.parked.load(Ordering::Relaxed)..wanted {
            self.parked.fetch_add(1, Ordering::Relaxed);
            self.spawn(None, Bytes::new(), self.token.child_token());
        }
    }

    fn spawn(
        self: &Arc<Self>,
        mut pending: Option<PendingDial>,
        dial_id: Bytes,
        cancel: CancellationToken,
    ) {
        let session = self.clone();
        self.supervisor.spawn("tunnel_carry", async move {
            let answers = !dial_id.is_empty();
            loop {
                let earlier = session.begun.fetch_add(1, Ordering::Relaxed);
                let ended = carry(&session, &mut pending, dial_id.clone(), &cancel).await;
                let Ended::Failed(fault) = ended else { break };
                tracing::debug!(reason = %fault.reason, answers, "a carry stream failed: {}", fault.message);
                let astray = fault.reason == Reason::SessionUnknown;
                if astray {
                    session.astray(earlier);
                }
                if !answers {
                    let mut paused = session.paused_until.lock();
                    let until = clock::instant() + PARK_PAUSE;
                    // A pause for good, as the broker leaves, stays.
                    *paused = Some(paused.map_or(until, |paused| paused.max(until)));
                }
                // A dial is tried again: it is still good where it was made.
                if !astray || !answers {
                    break;
                }
            }
            session.changed.notify_one();
        });
    }
}

/// A stream that may land anywhere.
pub(super) struct Opening<'a>(&'a AtomicUsize);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that is parked.
pub(super) struct ParkedCount(Arc<Session>);

impl Drop for ParkedCount {
    fn drop(&mut self) {
        // Whoever ends the stream or uses it tells the pool.
        self.0.parked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open control stream.
pub(super) struct Control {
    inbound: Streaming<AttachResponse>,
    outbound: mpsc::Sender<AttachRequest>,
    welcome: Welcome,
}

/// Attaches: sends `Hello` and waits for `Welcome`.
pub(super) async fn attach(
    config: &AgentTunnelConfig,
    channel: &RpcChannel,
    exports: &Exports,
) -> Result<Control, Fault> {
    let (outbound, queue) = mpsc::channel(CONTROL_QUEUE);
    let hello = Hello {
        endpoint: config.endpoint.to_string(),
        instance_id: config.instance.to_string(),
        agent_version: config.version.clone(),
        targets: exports.offers(),
        max_connections: config.max_connections,
        start_time: Some(config.started.into()),
    };
    let hello = AttachRequest { message: Some(attach_request::Message::Hello(hello)) };
    // The queue is fresh and has room.
    let _ = outbound.try_send(hello);
    let handshake = async {
        let mut client = AgentTunnelServiceClient::new(channel.clone());
        let mut inbound = client
            .attach(ReceiverStream::new(queue))
            .await
            .map_err(|status| from_status(&status))?
            .into_inner();
        match inbound
            .message()
            .await
            .map_err(|status| from_status(&status))?
            .and_then(|m| m.message)
        {
            Some(attach_response::Message::Welcome(welcome)) => {
                Ok(Control { inbound, outbound, welcome })
            }
            _ => {
                Err(Fault::new(Reason::TunnelLost, "the broker did not answer hello with welcome"))
            }
        }
    };
    tokio::time::timeout(WELCOME, handshake)
        .await
        .map_err(|_| Fault::new(Reason::TunnelLost, "the broker did not answer in time"))?
}

/// Runs a session to its end. `draining` is told once when the broker will
/// leave.
pub(super) async fn run(
    control: Control,
    channel: RpcChannel,
    attacher: &Attacher,
    draining: oneshot::Sender<Leaving>,
) -> SessionEnd {
    let Control { mut inbound, outbound, welcome } = control;
    let stop = attacher.supervisor.token();
    if welcome.stream_window > 0 {
        channel.widen(welcome.stream_window);
    }
    let session = Arc::new(Session {
        id: welcome.session_id,
        channel,
        exports: attacher.exports.clone(),
        life: LifeMark::now(),
        connections: attacher.connections.clone(),
        max_connections: attacher.config.max_connections,
        dials: attacher.dials.clone(),
        supervisor: attacher.supervisor.clone(),
        jitter: attacher.config.jitter.clone(),
        pool: Mutex::new(PoolSize::new(welcome.parked_target as usize)),
        parked: Arc::default(),
        paused_until: Mutex::new(None),
        astray: AtomicUsize::new(0),
        begun: AtomicUsize::new(0),
        begun_at_arrival: AtomicUsize::new(0),
        opening: AtomicUsize::new(0),
        changed: Notify::new(),
        token: stop.child_token(),
    });
    let _end_parked = session.token.clone().drop_guard();
    let interval = welcome
        .heartbeat
        .and_then(|heartbeat| Duration::try_from(heartbeat).ok())
        .filter(|heartbeat| !heartbeat.is_zero())
        .unwrap_or(Duration::from_secs(10));
    let mut heartbeat = Heartbeat::early(interval, clock::instant());
    let mut tick = tokio::time::interval(heartbeat.tick());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut draining = Some(draining);
    let mut nonce = 0_u64;
    loop {
        session.top_up();
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return SessionEnd::Stopped,
            () = session.token.cancelled() => {
                return SessionEnd::Lost(Fault::new(Reason::SessionUnknown, "the broker does not know the session; a balancer before brokers must pass on whole connections"));
            }
            message = inbound.message() => {
                session.life.mark();
                match message {
                    Ok(Some(AttachResponse { message: Some(message) })) => {
                        handle(&session, message, &mut draining)
                    }
                    Ok(Some(_)) => None,
                    Ok(None) => {
                        return SessionEnd::Lost(Fault::new(Reason::TunnelLost, "the broker ended the session"));
                    }
                    Err(status) => return SessionEnd::Lost(from_status(&status)),
                }
            }
            () = session.changed.notified() => None,
            _ = tick.tick() => {
                match heartbeat.check(clock::instant(), session.life.heard()) {
                    Life::Heard => None,
                    Life::Ask => {
                        nonce += 1;
                        Some(attach_request::Message::Ping(Ping { nonce }))
                    }
                    Life::Dead => {
                        return SessionEnd::Lost(Fault::new(Reason::TunnelLost, "the broker fell silent"));
                    }
                }
            }
        };
        if let Some(answer) = answer
            && outbound.try_send(AttachRequest { message: Some(answer) }).is_err()
        {
            return SessionEnd::Lost(Fault::new(
                Reason::TunnelLost,
                "the control stream does not drain",
            ));
        }
    }
}

/// Acts on a control message; gives the answer if it needs one.
fn handle(
    session: &Arc<Session>,
    message: attach_response::Message,
    draining: &mut Option<oneshot::Sender<Leaving>>,
) -> Option<attach_request::Message> {
    use attach_response::Message;
    match message {
        Message::Ping(ping) => Some(attach_request::Message::Pong(Pong { nonce: ping.nonce })),
        Message::Pong(_) | Message::Welcome(_) => None,
        Message::Dial(dial) => {
            if session.connections.load(Ordering::Relaxed) >= session.max_connections {
                return Some(attach_request::Message::DialFailed(DialFailed {
                    dial_id: dial.dial_id,
                    reason: Reason::DialsLimited.as_str().to_owned(),
                    message: "the agent has as many connections as it takes".to_owned(),
                }));
            }
            let cancel = session.token.child_token();
            let pending = session.dials.begin(dial.dial_id.clone(), cancel.clone())?;
            // The pool was too small.
            session.pool.lock().used(clock::instant());
            session.spawn(Some(pending), dial.dial_id, cancel);
            None
        }
        Message::CancelDial(dial) => {
            session.dials.cancel(&dial.dial_id);
            None
        }
        Message::Drain(drain) => {
            let time = |told: Option<prost_types::Duration>| Duration::try_from(told?).ok();
            let after = time(drain.retry_after).unwrap_or_default();
            let wait = drain::wait(after, time(drain.spread), session.jitter.fraction());
            // What is parked stays until the broker ends it; nothing new is.
            *session.paused_until.lock() = Some(clock::instant() + Duration::from_secs(86_400));
            if let Some(draining) = draining.take() {
                let _ = draining.send(Leaving { wait, alternatives: drain.alternatives });
            }
            None
        }
    }
}

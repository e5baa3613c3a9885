//! Keeps an agent attached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use wolfpack_runtime::{Supervisor, clock};
use wolfpack_types::{Fault, Reason};

use super::dials::Dials;
use super::exports::Exports;
use super::session::{self, SessionEnd};
use super::{AgentTunnelConfig, BrokerAt};
use crate::protocol::{Backoff, drain};
use crate::reasons::TURN;

pub(super) struct Attacher {
    pub(super) config: AgentTunnelConfig,
    /// Where it may attach; never empty.
    pub(super) brokers: Vec<BrokerAt>,
    pub(super) exports: Arc<Exports>,
    pub(super) connections: Arc<AtomicU32>,
    /// Dials that wait for a stream, over all sessions.
    pub(super) dials: Dials,
    pub(super) supervisor: Supervisor,
    /// Sessions open now: two while one drains.
    pub(super) sessions: Arc<AtomicUsize>,
    pub(super) attached: watch::Sender<bool>,
}

/// What a broker that leaves says.
pub(super) struct Leaving {
    /// How long to wait before attaching elsewhere.
    pub(super) wait: Duration,
    /// Other brokers, by address.
    pub(super) alternatives: Vec<String>,
}

/// Why a session is no longer the one to use.
enum Over {
    Ended(SessionEnd),
    /// It runs on until its broker leaves; attach elsewhere.
    Draining(Leaving),
}

impl Attacher {
    /// Attaches until the supervisor stops (`None`) or a newer instance took
    /// over, which is final.
    pub(super) async fn run(self) -> Option<Fault> {
        let attacher = Arc::new(self);
        let stop = attacher.supervisor.token();
        let mut backoff = Backoff::default();
        let addresses: Vec<String> =
            attacher.brokers.iter().map(|broker| broker.address.clone()).collect();
        let mut at = 0;
        loop {
            let began = clock::instant();
            let (fault, draining) = tokio::select! {
                () = stop.cancelled() => return None,
                over = Self::one(&attacher, at) => match over {
                    Over::Ended(SessionEnd::Stopped) => return None,
                    Over::Ended(SessionEnd::Lost(fault)) => (fault, None),
                    Over::Draining(leaving) => {
                        (Fault::new(Reason::BrokerDraining, "the broker will leave"), Some(leaving))
                    }
                }
            };
            if fault.reason == Reason::Superseded {
                tracing::warn!(endpoint = %attacher.config.endpoint, "a newer instance took over; this one stays away");
                return Some(fault);
            }
            backoff.was_up_for(clock::instant().duration_since(began));
            let jitter = || attacher.config.jitter.fraction();
            let (next, wait) = match (draining, fault.retry_after) {
                (Some(leaving), _) => {
                    (drain::elsewhere(&addresses, at, &leaving.alternatives), leaving.wait)
                }
                // It will have room then. Where there are others, they may have it now.
                (None, Some(turn)) if addresses.len() == 1 && fault.metadata.contains_key(TURN) => {
                    (at, backoff.turn(jitter(), turn))
                }
                (None, hint) => ((at + 1) % addresses.len(), backoff.next_wait(jitter(), hint)),
            };
            at = next;
            tracing::info!(
                endpoint = %attacher.config.endpoint,
                reason = %fault.reason,
                ?wait,
                "attaching again: {}", fault.message
            );
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One session, as long as it is the one to use.
    async fn one(attacher: &Arc<Self>, at: usize) -> Over {
        let channel = attacher.brokers[at].channel.clone();
        let control = match session::attach(&attacher.config, &channel, &attacher.exports).await {
            Ok(control) => control,
            Err(fault) => return Over::Ended(SessionEnd::Lost(fault)),
        };
        tracing::info!(endpoint = %attacher.config.endpoint, "attached");
        let (drain, draining) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let this = attacher.clone();
        // A task of its own: a session that drains outlives its successor's start.
        attacher.supervisor.spawn("tunnel_session", async move {
            this.sessions.fetch_add(1, Ordering::SeqCst);
            this.show();
            let end = session::run(control, channel, &this, drain).await;
            this.sessions.fetch_sub(1, Ordering::SeqCst);
            this.show();
            let _ = finish.send(end);
        });
        let ended = |end: Result<SessionEnd, _>| Over::Ended(end.unwrap_or(SessionEnd::Stopped));
        tokio::select! {
            biased;
            end = finished => ended(end),
            Ok(leaving) = draining => Over::Draining(leaving),
        }
    }

    fn show(&self) {
        let attached = self.sessions.load(Ordering::SeqCst) > 0;
        self.attached.send_if_modified(|seen| std::mem::replace(seen, attached) != attached);
    }
}

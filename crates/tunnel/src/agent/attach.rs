//! Keeps an agent attached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use wolfpack_rpc::RpcChannel;
use wolfpack_runtime::Supervisor;
use wolfpack_types::{Fault, Reason};

use super::AgentTunnelConfig;
use super::dials::Dials;
use super::exports::Exports;
use super::session::{self, SessionEnd};
use crate::protocol::Backoff;

pub(super) struct Attacher {
    pub(super) config: AgentTunnelConfig,
    pub(super) channel: RpcChannel,
    pub(super) exports: Arc<Exports>,
    pub(super) connections: Arc<AtomicU32>,
    /// Dials that wait for a stream, over all sessions.
    pub(super) dials: Dials,
    pub(super) supervisor: Supervisor,
    /// Sessions open now: two while one drains.
    pub(super) sessions: Arc<AtomicUsize>,
    pub(super) attached: watch::Sender<bool>,
}

/// Why a session is no longer the one to use.
enum Over {
    Ended(SessionEnd),
    /// It runs on until its broker leaves; attach elsewhere after this time.
    Draining(Duration),
}

impl Attacher {
    /// Attaches until the supervisor stops (`None`) or a newer instance took
    /// over, which is final.
    pub(super) async fn run(self) -> Option<Fault> {
        let attacher = Arc::new(self);
        let stop = attacher.supervisor.token();
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let (fault, draining) = tokio::select! {
                () = stop.cancelled() => return None,
                over = Self::one(&attacher) => match over {
                    Over::Ended(SessionEnd::Stopped) => return None,
                    Over::Ended(SessionEnd::Lost(fault)) => (fault, None),
                    Over::Draining(wait) => {
                        (Fault::new(Reason::BrokerDraining, "the broker will leave"), Some(wait))
                    }
                }
            };
            if fault.reason == Reason::Superseded {
                tracing::warn!(endpoint = %attacher.config.endpoint, "a newer instance took over; this one stays away");
                return Some(fault);
            }
            backoff.was_up_for(began.elapsed());
            let wait = match draining {
                Some(wait) => wait,
                None => backoff.next_wait(rand::random(), fault.retry_after),
            };
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
    async fn one(attacher: &Arc<Self>) -> Over {
        let control =
            match session::attach(&attacher.config, &attacher.channel, &attacher.exports).await {
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
            let end = session::run(control, &this, drain).await;
            this.sessions.fetch_sub(1, Ordering::SeqCst);
            this.show();
            let _ = finish.send(end);
        });
        let ended = |end: Result<SessionEnd, _>| Over::Ended(end.unwrap_or(SessionEnd::Stopped));
        tokio::select! {
            biased;
            end = finished => ended(end),
            Ok(wait) = draining => Over::Draining(wait),
        }
    }

    fn show(&self) {
        let attached = self.sessions.load(Ordering::SeqCst) > 0;
        self.attached.send_if_modified(|seen| std::mem::replace(seen, attached) != attached);
    }
}

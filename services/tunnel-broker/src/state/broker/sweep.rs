//! What is cleared away now and then.

use std::ops::RangeInclusive;
use std::time::Duration;

use wolfpack_runtime::clock;

use super::{Broker, Tunnels};

/// How often the ledger of instances is swept.
const SWEEP: Duration = Duration::from_secs(300);
/// How often what is known of agents is.
const SWEEP_AGENTS: Duration = Duration::from_secs(60);
/// How often sessions are, at most; a tenth of a heartbeat where that is less.
const SWEEP_SESSIONS: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(1);

impl Broker {
    /// Sweeps for good: what sessions have left over, and what is known of agents
    /// that are gone. One task for all of them, as looking at one costs less than
    /// waking a task of its own.
    pub async fn keep_swept(&self) {
        let period =
            (self.limits.heartbeat / 10).clamp(*SWEEP_SESSIONS.start(), *SWEEP_SESSIONS.end());
        let mut swept = clock::instant();
        loop {
            tokio::time::sleep(period).await;
            for session in self.sessions() {
                session.sweep();
            }
            let now = clock::instant();
            if now.saturating_duration_since(swept) >= SWEEP_AGENTS {
                swept = now;
                self.sweep();
            }
        }
    }

    /// Forgets instances of long ago, and agents that have not attached lately.
    fn sweep(&self) {
        self.admission.sweep();
        let now = clock::instant();
        let mut tunnels = self.tunnels.write();
        if tunnels.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            tunnels.swept = Some(now);
            let Tunnels { by_endpoint, ledger, .. } = &mut *tunnels;
            ledger.forget(now, |endpoint| by_endpoint.contains_key(&endpoint.to_string()));
        }
    }
}

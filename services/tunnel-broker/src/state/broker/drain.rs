//! How a broker leaves: nobody new, a word to all who are there, time for what
//! runs, and an end with a reason for what is left.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wolfpack_proto::tunnel::v1::Drain;
use wolfpack_proto::tunnel::v1::attach_response::Message;
use wolfpack_tunnel::protocol::drain;
use wolfpack_types::{Fault, Reason};

use super::Broker;

/// How long agents should wait before they attach elsewhere, each with its part
/// of a spread on top.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long connections that a drain cut have to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Broker {
    /// # Errors
    /// `BROKER_DRAINING` once the broker drains.
    pub fn not_draining(&self) -> Result<(), Fault> {
        if self.draining.is_cancelled() { Err(leaving()) } else { Ok(()) }
    }

    /// Refuses new work, tells the agents, lets connections finish until
    /// `deadline`, then ends what is left with `BROKER_DRAINING`. `alternatives`
    /// are the agent ports of other brokers, `host:port`.
    pub async fn drain(&self, deadline: Duration, alternatives: &[String]) {
        self.draining.cancel();
        let sessions = self.sessions();
        let spread = drain::spread(sessions.len(), self.limits.attaches_per_second);
        let message = Drain {
            deadline: Some((self.clock.now() + deadline).into()),
            retry_after: prost_types::Duration::try_from(RETRY_AFTER).ok(),
            spread: prost_types::Duration::try_from(spread).ok(),
            alternatives: alternatives.to_vec(),
        };
        for session in &sessions {
            session.send(Message::Drain(message.clone()));
        }
        let end = tokio::time::Instant::now() + deadline;
        while self.connections.load(Ordering::SeqCst) > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = self.connections.load(Ordering::SeqCst);
        if left > 0 {
            tracing::warn!(left, "the drain reached its deadline; connections are ended");
            for session in &sessions {
                session.abort_connections(&leaving());
            }
        }
        for session in sessions {
            self.detach(&session, &leaving());
        }
        // The servers end streams once this is over: those that were cut say
        // our reason first.
        let end = tokio::time::Instant::now() + LAST_WORDS;
        while self.connections.load(Ordering::SeqCst) > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(super) fn leaving() -> Fault {
    Fault::new(Reason::BrokerDraining, "this broker is leaving; try again, another one answers")
        .retry_in(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::broker::tests::spec;
    use crate::state::{Limits, SessionSpec};
    use tokio::sync::mpsc;
    use wolfpack_types::{Endpoint, WolfId};

    #[tokio::test(start_paused = true)]
    async fn who_is_there_is_told_and_who_comes_too_late_is_refused() {
        let broker = Arc::new(Broker::new(Limits::default()));
        let (there, late) = (Endpoint::Wolf(WolfId::new()), Endpoint::Wolf(WolfId::new()));
        let (control, mut messages) = mpsc::channel(8);
        let session = broker.attach(SessionSpec { control, ..spec(&there, "one") }).unwrap();
        let running = broker.count().unwrap();
        // Let in before the drain, as one is that still has to yield to another.
        broker.may_attach(&wolfpack_types::Principal::Wolf(WolfId::new())).unwrap();
        let draining = {
            let broker = broker.clone();
            tokio::spawn(async move { broker.drain(Duration::from_secs(60), &[]).await })
        };
        let told = messages.recv().await.unwrap().message;
        assert!(matches!(told, Some(Message::Drain(_))), "{told:?}");

        let fault = broker.attach(spec(&late, "one")).unwrap_err();
        assert_eq!(fault.reason, Reason::BrokerDraining);
        assert_eq!(fault.retry_after, Some(RETRY_AFTER));
        assert!(broker.find(&late).is_none());
        assert!(session.fault().is_none(), "it may finish");
        drop(running);
        draining.await.unwrap();
        assert_eq!(session.fault().unwrap().reason, Reason::BrokerDraining);
        assert_eq!(broker.counts(), [0; 4]);
    }

    /// However they meet: who got in is ended by the drain.
    #[test]
    fn nobody_gets_in_unseen() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for round in 0..300 {
            let broker = Arc::new(Broker::new(Limits::default()));
            let (begin, began) = std::sync::mpsc::channel();
            let attaching = {
                let broker = broker.clone();
                std::thread::spawn(move || {
                    let mut attached = Vec::new();
                    for at in 0..64 {
                        if at == round % 16 {
                            begin.send(()).unwrap();
                        }
                        let wolf = Endpoint::Wolf(WolfId::new());
                        attached.extend(broker.attach(spec(&wolf, "one")));
                    }
                    attached
                })
            };
            began.recv().unwrap();
            runtime.block_on(broker.drain(Duration::ZERO, &[]));
            for session in attaching.join().unwrap() {
                let fault = session.fault().expect("it was told");
                // Its queue holds eight messages, and nobody reads them.
                assert!(matches!(fault.reason, Reason::BrokerDraining | Reason::TunnelLost));
            }
        }
    }
}

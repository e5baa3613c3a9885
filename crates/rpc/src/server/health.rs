//! Health: `grpc.health.v1` for probes that speak gRPC, `/healthz` for others.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Says which services serve. Clones share one state.
#[derive(Clone)]
pub struct HealthHandle {
    reporter: HealthReporter,
    /// What holds the whole server back; empty means it serves.
    held_back: Arc<Mutex<BTreeSet<String>>>,
    serving: watch::Sender<bool>,
    names: Arc<Vec<String>>,
}

impl HealthHandle {
    pub(crate) fn new(reporter: HealthReporter, names: Vec<String>) -> Self {
        Self {
            reporter,
            held_back: Arc::new(Mutex::new(BTreeSet::from([STARTING.to_owned()]))),
            serving: watch::channel(false).0,
            names: Arc::new(names),
        }
    }

    /// Whether the server as a whole serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self.serving.borrow()
    }

    /// A condition that the server needs, such as `database`: while it does
    /// not hold, the server and all its services are NOT_SERVING. Conditions
    /// that were never named hold.
    pub async fn set(&self, condition: &str, holds: bool) {
        {
            let mut held_back = self.held_back.lock();
            if holds {
                held_back.remove(condition);
            } else {
                held_back.insert(condition.to_owned());
            }
        }
        self.publish().await;
    }

    /// Waits until the server serves.
    pub async fn serving(&self) {
        let mut serving = self.serving.subscribe();
        // The sender lives in self.
        let _ = serving.wait_for(|serving| *serving).await;
    }

    /// The conditions that hold the server back, for people.
    #[must_use]
    pub fn held_back_by(&self) -> Vec<String> {
        self.held_back.lock().iter().cloned().collect()
    }

    pub(crate) async fn started(&self) {
        self.set(STARTING, true).await;
    }

    pub(crate) async fn draining(&self) {
        self.set(DRAINING, false).await;
    }

    async fn publish(&self) {
        let serving = self.held_back.lock().is_empty();
        self.serving.send_replace(serving);
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status("", status).await;
        for name in self.names.iter() {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

const STARTING: &str = "starting";
const DRAINING: &str = "draining";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_serves_when_nothing_holds_it_back() {
        let health = HealthHandle::new(HealthReporter::new(), vec!["a.B".into()]);
        assert!(!health.is_serving());
        health.started().await;
        assert!(health.is_serving());
        health.set("database", false).await;
        health.set("broker", false).await;
        assert_eq!(health.held_back_by(), ["broker", "database"]);
        health.set("database", true).await;
        assert!(!health.is_serving());
        health.set("broker", true).await;
        assert!(health.is_serving());
        health.draining().await;
        assert!(!health.is_serving());
    }
}

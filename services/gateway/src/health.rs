//! Whether the services behind serve, and so the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as WireStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;
use wolfpack_rpc::client::RpcChannel;

use crate::routes::{PUBLIC, Upstream};

/// How long a service behind may take to say how it is.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often one that does not serve is asked at least.
const EAGER: Duration = Duration::from_millis(250);

/// Clones share one state.
#[derive(Clone)]
pub struct HealthBoard {
    reporter: HealthReporter,
    upstreams: Arc<Mutex<BTreeMap<Upstream, bool>>>,
    draining: CancellationToken,
}

impl HealthBoard {
    /// Nothing serves yet.
    pub async fn new() -> Self {
        let upstreams = Upstream::ALL.into_iter().map(|upstream| (upstream, false)).collect();
        let board = Self {
            reporter: HealthReporter::new(),
            upstreams: Arc::new(Mutex::new(upstreams)),
            draining: CancellationToken::new(),
        };
        board.publish().await;
        board
    }

    pub(crate) fn reporter(&self) -> HealthReporter {
        self.reporter.clone()
    }

    /// The services behind and whether each serves.
    #[must_use]
    pub fn upstreams(&self) -> BTreeMap<Upstream, bool> {
        self.upstreams.lock().clone()
    }

    /// Whether everything serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.draining.is_cancelled() && self.upstreams.lock().values().all(|serves| *serves)
    }

    /// The gateway leaves: nothing serves any more.
    pub async fn drain(&self) {
        self.draining.cancel();
        self.publish().await;
    }

    /// Tells how a service behind is.
    pub async fn set(&self, upstream: Upstream, serves: bool) {
        let before = self.upstreams.lock().insert(upstream, serves);
        if before != Some(serves) {
            tracing::info!(upstream = upstream.name(), serves, "health of a service changed");
            self.publish().await;
        }
    }

    async fn publish(&self) {
        let status = |serves: bool| {
            if serves { ServingStatus::Serving } else { ServingStatus::NotServing }
        };
        let upstreams = self.upstreams();
        let here = !self.draining.is_cancelled();
        let serves = |upstream| here && upstreams.get(&upstream) == Some(&true);
        for upstream in Upstream::ALL {
            self.reporter.set_service_status(upstream.name(), status(serves(upstream))).await;
        }
        for public in PUBLIC {
            self.reporter.set_service_status(public.name, status(serves(public.upstream))).await;
        }
        self.reporter.set_service_status("", status(self.is_serving())).await;
    }

    /// Asks one service behind again and again, until stopped.
    pub async fn follow(
        self,
        upstream: Upstream,
        channel: RpcChannel,
        interval: Duration,
        stop: CancellationToken,
    ) {
        let channel = channel.with_deadline(DEADLINE);
        loop {
            let serves = ask(&channel).await;
            self.set(upstream, serves).await;
            let pause = if serves { interval } else { interval.min(EAGER) };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

async fn ask(channel: &RpcChannel) -> bool {
    let request = HealthCheckRequest { service: String::new() };
    match HealthClient::new(channel.clone()).check(request).await {
        Ok(answer) => answer.into_inner().status() == WireStatus::Serving,
        Err(status) => {
            tracing::debug!(peer = channel.peer(), %status, "a service does not say how it is");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_serve_or_the_gateway_does_not() {
        let board = HealthBoard::new().await;
        assert!(!board.is_serving());
        for upstream in Upstream::ALL {
            assert!(!board.is_serving());
            board.set(upstream, true).await;
        }
        assert!(board.is_serving());
        board.set(Upstream::Scheduler, false).await;
        assert!(!board.is_serving());
        board.set(Upstream::Scheduler, true).await;
        board.drain().await;
        assert!(!board.is_serving());
    }
}

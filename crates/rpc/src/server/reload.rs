//! Looks at a listener's TLS files every few seconds.

use std::time::{Duration, SystemTime};

use wolfpack_runtime::Supervisor;

use super::metrics::Metrics;
use crate::tls::{RELOAD_INTERVAL, ServerTls};

/// A certificate with less than this left is warned of, once an hour.
const WARN_BEFORE: Duration = Duration::from_secs(24 * 3600);
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// Reloads until the supervisor stops.
pub(super) fn spawn(supervisor: &Supervisor, tls: ServerTls, metrics: Metrics) {
    let stop = supervisor.token();
    supervisor.spawn("rpc.tls.reload", async move {
        let mut warned: Option<SystemTime> = None;
        loop {
            look(&tls, &metrics).await;
            warn(&tls, &mut warned);
            if stop.run_until_cancelled(tokio::time::sleep(RELOAD_INTERVAL)).await.is_none() {
                return;
            }
        }
    });
}

async fn look(tls: &ServerTls, metrics: &Metrics) {
    let files = tls.clone();
    match tokio::task::spawn_blocking(move || files.reload()).await {
        Ok(Ok(true)) => {
            metrics.reloaded(true);
            tracing::info!(certificate = tls.name(), "certificate and roots reloaded");
        }
        Ok(Ok(false)) => {}
        Ok(Err(error)) => {
            metrics.reloaded(false);
            tracing::warn!(%error, "certificate and roots not reloaded; the old ones stay in use");
        }
        Err(error) => {
            metrics.reloaded(false);
            tracing::error!(%error, "the reload of the certificate broke");
        }
    }
    metrics.certificate(&tls.name(), tls.expires());
}

fn warn(tls: &ServerTls, warned: &mut Option<SystemTime>) {
    let now = SystemTime::now();
    let left = tls.expires().duration_since(now).unwrap_or_default();
    let due = warned.is_none_or(|at| now.duration_since(at).is_ok_and(|since| since >= WARN_EVERY));
    if left < WARN_BEFORE && due {
        *warned = Some(now);
        tracing::warn!(
            certificate = tls.name(),
            seconds = left.as_secs(),
            "the certificate ends soon; issue a new one"
        );
    }
}

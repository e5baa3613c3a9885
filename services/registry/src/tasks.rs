//! What the registry does by itself: looks for silence, and cleans up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wolfpack_rpc::server::HealthHandle;
use wolfpack_runtime::BoxError;
use wolfpack_types::Fault;

use crate::service::Registry;

/// How often wolves are counted for metrics.
const CENSUS: Duration = Duration::from_secs(10);
/// How often old rows are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Judges silent wolves anew, at every tick. Any number of replicas may do so.
pub(crate) async fn watch_health(
    registry: Arc<Registry>,
    health: HealthHandle,
    sweep: Duration,
    token: CancellationToken,
) -> Result<(), BoxError> {
    let mut ticks = interval(sweep);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counted: Option<Instant> = None;
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let swept = sweep_once(&registry).await;
        health.set("database", swept.is_ok()).await;
        swept?;
        if counted.is_none_or(|at| at.elapsed() >= CENSUS) {
            counted = Some(Instant::now());
            registry.metrics.census(registry.database.census().await.map_err(Fault::from)?);
        }
    }
}

async fn sweep_once(registry: &Registry) -> Result<(), Fault> {
    for wolf in registry.database.silent_wolves(registry.timing).await? {
        if let Some((state, true)) = registry.database.settle(&wolf, registry.timing).await? {
            tracing::warn!(%wolf, state = state.as_str(), "a wolf is silent");
            registry.wolves.wake();
        }
    }
    Ok(())
}

/// Forgets what no longer matters, and makes a fresh signing key when it is
/// time. Any number of replicas may do so.
pub(crate) async fn keep_house(
    registry: Arc<Registry>,
    unregistered: Duration,
    token: CancellationToken,
) -> Result<(), BoxError> {
    let mut ticks = interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        clean(&registry, unregistered).await?;
    }
}

async fn clean(registry: &Registry, unregistered: Duration) -> Result<(), Fault> {
    let database = &registry.database;
    registry.tokens.rotate().await?;
    let removed = database.remove_unregistered(unregistered).await?;
    if removed > 0 {
        tracing::info!(removed, "wolves that never registered were removed");
        registry.wolves.wake();
    }
    let wolves = database.purge_wolves().await?;
    let revocations = database.purge_revocations().await?;
    let join_tokens = database.purge_join_tokens().await?;
    let request_ids = database.purge_request_ids().await?;
    let forgotten = registry.wolves.forget().await? + registry.revocations.forget().await?;
    tracing::debug!(wolves, revocations, join_tokens, request_ids, forgotten, "cleaned up");
    Ok(())
}

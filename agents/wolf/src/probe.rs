//! Whether the engine works: it is asked every few seconds, apart from the
//! heartbeat, which must not wait for an engine that hangs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// How often the engine is asked.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

/// What the last question brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EngineHealth {
    /// What is wrong; `None` when it works.
    pub fault: Option<String>,
}

/// Asks until `stop`.
pub(crate) async fn run(
    engine: Arc<dyn Engine>,
    every: Duration,
    health: watch::Sender<EngineHealth>,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(every);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        let fault = tokio::select! {
            info = engine.info() => info.err().map(|error| words(&error)),
            () = stop.cancelled() => return,
        };
        health.send_if_modified(|health| {
            if health.fault == fault {
                return false;
            }
            match &fault {
                Some(fault) => tracing::error!(fault, "the engine does not work"),
                None => tracing::info!("the engine works again"),
            }
            health.fault = fault;
            true
        });
    }
}

fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

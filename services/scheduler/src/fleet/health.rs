//! Whether what is known of the fleet may be acted upon.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use wolfpack_types::{Fault, Reason};

#[derive(Debug, Default)]
struct State {
    /// Whether the whole fleet was heard once.
    synced: bool,
    /// Since when the watch is broken.
    broken_since: Option<Instant>,
}

/// Shared by the feed, which knows the watch, and the writer, which decides.
#[derive(Debug, Clone)]
pub struct FleetHealth {
    state: Arc<Mutex<State>>,
    stale_after: Duration,
}

impl FleetHealth {
    /// Nothing was heard yet. News that are older than `stale_after` are not
    /// acted upon.
    #[must_use]
    pub fn new(stale_after: Duration) -> Self {
        Self { state: Arc::default(), stale_after }
    }

    /// The whole fleet is in the book.
    pub fn synced(&self) {
        self.state.lock().synced = true;
    }

    /// The watch runs.
    pub fn connected(&self) {
        self.state.lock().broken_since = None;
    }

    /// The watch ended; the first break counts until it runs again.
    pub fn broken(&self) {
        self.state.lock().broken_since.get_or_insert_with(Instant::now);
    }

    /// Whether a sandbox may be placed by it.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE` before the fleet was heard and after the watch
    /// has been broken for too long.
    pub fn usable(&self) -> Result<(), Fault> {
        let state = self.state.lock();
        if !state.synced {
            return Err(Fault::new(
                Reason::DependencyUnavailable,
                "the fleet is not known yet, the registry has not told it; try again",
            )
            .with("dependency", "registry")
            .retry_in(Duration::from_millis(500)));
        }
        let broken = state.broken_since.map_or(Duration::ZERO, |since| since.elapsed());
        if broken > self.stale_after {
            let seconds = broken.as_secs();
            return Err(Fault::new(
                Reason::DependencyUnavailable,
                format!(
                    "the registry was not heard for {seconds} s, so the fleet may have changed; \
                     try again when it is back"
                ),
            )
            .with("dependency", "registry")
            .retry_in(Duration::from_secs(2)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn old_news_are_not_acted_upon() {
        let health = FleetHealth::new(Duration::from_secs(30));
        assert!(health.usable().is_err(), "nothing was heard yet");
        health.synced();
        assert!(health.usable().is_ok());
        health.broken();
        tokio::time::advance(Duration::from_secs(20)).await;
        health.broken();
        assert!(health.usable().is_ok());
        tokio::time::advance(Duration::from_secs(11)).await;
        let fault = health.usable().unwrap_err();
        assert_eq!(fault.reason, Reason::DependencyUnavailable);
        assert!(fault.message.contains("31 s"), "{fault}");
        health.connected();
        assert!(health.usable().is_ok());
    }
}

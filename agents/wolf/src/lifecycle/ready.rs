//! Whether the engine was set up: its bridge made, the relay on it listening.

use std::time::Duration;

use wolfpack_types::{Fault, Reason};

use super::Lifecycle;
use crate::engine::{EngineInfo, Network};

/// How long a create waits for the engine to be set up.
const WAIT: Duration = Duration::from_secs(20);

/// Ports of the relay on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayPorts {
    /// The one that leads to the gateway.
    pub gateway: u16,
    /// The one that leads to the broker.
    pub broker: u16,
}

/// What the engine keeps to a size by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// What a container writes.
    pub containers: bool,
    /// Volumes.
    pub volumes: bool,
}

/// An engine that was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// What the engine is.
    pub engine: EngineInfo,
    /// The bridge.
    pub network: Network,
    /// The relay's ports on it.
    pub ports: RelayPorts,
    /// Whether folders of the host can be bound for the engine.
    pub stage: bool,
    /// What the engine keeps to a size.
    pub quota: Quota,
}

impl Lifecycle {
    /// Says that the engine was set up; creates that wait go on.
    pub fn set_ready(&self, ready: Ready) {
        self.inner.ready.send_replace(Some(ready));
    }

    /// Resolves when the engine has to be set up again: its bridge is gone.
    pub async fn setup_needed(&self) {
        self.inner.setup_again.notified().await;
    }

    /// Whether the operator lets sandboxes mount anything.
    #[must_use]
    pub fn allows_mounts(&self) -> bool {
        !self.inner.settings.mounts.allow.is_empty()
    }

    /// The engine as it was set up last; `None` before the first time.
    #[must_use]
    pub fn ready_now(&self) -> Option<Ready> {
        self.inner.ready.borrow().clone()
    }

    pub(super) async fn ready(&self) -> Result<Ready, Fault> {
        let mut ready = self.inner.ready.subscribe();
        let waited = tokio::time::timeout(WAIT, ready.wait_for(Option::is_some)).await;
        let found = waited.ok().and_then(Result::ok).and_then(|ready| ready.clone());
        found.ok_or_else(|| {
            Fault::new(
                Reason::EngineFailed,
                "the engine of the wolf was not set up yet; try again, the wolf's log says why",
            )
        })
    }

    /// Forgets that the engine was set up and has it done again.
    pub(super) fn ask_for_setup(&self) {
        self.inner.ready.send_replace(None);
        self.inner.setup_again.notify_one();
    }
}

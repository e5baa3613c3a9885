//! The rpcs: each validates, asks what the caller may, calls the store and
//! maps the answer.

mod api_keys;
mod heartbeat;
mod identity;
mod joining;
mod sandbox_tokens;
mod streams;
mod users;
mod wolves;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use wolfpack_types::{Fault, Reason};

use crate::authority::LocalAuthority;
use crate::ca::CertificateAuthority;
use crate::domain::health::Timing;
use crate::metrics::Metrics;
use crate::sandbox_tokens::SandboxTokens;
use crate::store::{Database, REVOCATIONS};
use crate::watch::{Feed, Revocations, Wolves};

pub(crate) use streams::HeartbeatStreams;

/// A write waits so long for this replica's own watchers to have seen it.
const SEEN: Duration = Duration::from_secs(2);

/// What the handlers share.
pub(crate) struct Registry {
    pub(crate) database: Database,
    pub(crate) ca: CertificateAuthority,
    pub(crate) authority: Arc<LocalAuthority>,
    pub(crate) tokens: Arc<SandboxTokens>,
    pub(crate) wolves: Arc<Feed<Wolves>>,
    pub(crate) revocations: Arc<Feed<Revocations>>,
    pub(crate) streams: HeartbeatStreams,
    pub(crate) metrics: Metrics,
    pub(crate) timing: Timing,
    pub(crate) key_environment: String,
    pub(crate) agent_endpoint: ArcSwap<String>,
}

impl Registry {
    /// Returns when what was revoked is void here: the next call with it is
    /// refused. Other services hear of it by their watch.
    async fn revocations_seen(&self) -> Result<(), Fault> {
        let revision = self.database.current_revision(REVOCATIONS).await?;
        if self.revocations.catch_up(revision, SEEN).await {
            return Ok(());
        }
        Err(Fault::new(
            Reason::DependencyUnavailable,
            "it is done, but not every replica may know yet; call again to make sure",
        ))
    }
}

/// `WolfService`.
#[derive(Clone)]
pub(crate) struct WolfHandler(pub(crate) Arc<Registry>);

/// `IdentityService`.
#[derive(Clone)]
pub(crate) struct IdentityHandler(pub(crate) Arc<Registry>);

//! What was revoked, and which roles were changed, as the registry pushes it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::watch;
use wolfpack_proto::registry::v1::watch_revocations_response::Event;
use wolfpack_proto::registry::v1::{ChangedRole, RevokedSandbox};
use wolfpack_types::{ApiKeyId, ExecutionId, Principal, Role, SandboxId};

use super::claims::MAX_TOKEN_LIFE;
use super::remote::role_of;
use super::standing::{Standing, Standings};

/// Old entries are dropped when this many more came.
const PRUNE_EVERY: usize = 4096;
/// Longer than any token lives, and as long as the registry keeps them.
const KEPT: Duration = MAX_TOKEN_LIFE.saturating_add(Duration::from_secs(3600));

/// Revoked keys and sandboxes. Entries are kept for as long as a token can
/// live, then dropped: their tokens have ended by themselves.
pub(super) struct Revocations {
    known: RwLock<Known>,
    standings: Arc<Standings>,
    synced: watch::Sender<bool>,
}

#[derive(Default)]
struct Known {
    keys: HashMap<ApiKeyId, Instant>,
    /// The newest role of keys whose role was changed.
    roles: HashMap<ApiKeyId, (Role, Instant)>,
    sandboxes: HashMap<SandboxId, Boots>,
    inserts: usize,
}

struct Boots {
    /// All boots up to now.
    all: bool,
    some: HashSet<ExecutionId>,
    at: Instant,
}

impl Revocations {
    pub(super) fn new() -> Self {
        Self {
            known: RwLock::default(),
            standings: Arc::default(),
            synced: watch::channel(false).0,
        }
    }

    /// Takes one event; the bookmark says that the snapshot is complete.
    pub(super) fn apply(&self, event: Event) {
        match event {
            Event::ApiKey(name) => {
                if let Ok(key) = ApiKeyId::from_name(&name) {
                    let mut known = self.known.write();
                    known.keys.insert(key.clone(), Instant::now());
                    known.prune();
                    drop(known);
                    self.standings.end_key(&key);
                }
            }
            Event::Sandbox(revoked) => self.revoke_sandbox(&revoked),
            Event::Role(changed) => self.change_role(&changed),
            Event::Bookmark(_) => {
                self.synced.send_replace(true);
            }
        }
    }

    fn revoke_sandbox(&self, revoked: &RevokedSandbox) {
        let Ok(sandbox) = SandboxId::from_name(&revoked.sandbox) else { return };
        let mut known = self.known.write();
        let boots = known.sandboxes.entry(sandbox.clone()).or_insert_with(|| Boots {
            all: false,
            some: HashSet::new(),
            at: Instant::now(),
        });
        boots.at = Instant::now();
        // Empty means all; what does not parse must not pass either.
        let boot = ExecutionId::parse(&revoked.execution_id).ok();
        match &boot {
            Some(execution) => {
                boots.some.insert(execution.clone());
            }
            None => boots.all = true,
        }
        known.prune();
        drop(known);
        self.standings.end_sandbox(&sandbox, boot.as_ref());
    }

    fn change_role(&self, changed: &ChangedRole) {
        let Ok(key) = ApiKeyId::from_name(&changed.api_key) else { return };
        // One that this version does not know is the least.
        let role = role_of(changed.role()).unwrap_or(Role::Viewer);
        let mut known = self.known.write();
        known.roles.insert(key.clone(), (role, Instant::now()));
        known.prune();
        drop(known);
        self.standings.change_role(&key, role);
    }

    /// Waits for the first snapshot; `false` when it does not come in time.
    pub(super) async fn ready(&self, within: Duration) -> bool {
        let mut synced = self.synced.subscribe();
        tokio::time::timeout(within, synced.wait_for(|synced| *synced))
            .await
            .is_ok_and(|s| s.is_ok())
    }

    /// Follows the credential of a principal until it is dropped.
    pub(super) fn standing(&self, principal: &Principal) -> Option<Standing> {
        let standing = self.standings.hold(principal)?;
        // Revocations are written down before those who wait are told, so what
        // came before we waited is found here.
        let revoked = match principal {
            Principal::User { key, .. } => self.has_key(key),
            Principal::Sandbox { sandbox, execution, .. } => self.has_sandbox(sandbox, execution),
            Principal::Link { sandbox, .. } => self.is_deleted(sandbox),
            Principal::Service(_) | Principal::Wolf(_) | Principal::Anonymous => false,
        };
        if revoked {
            standing.end();
        } else if let Principal::User { key, role, .. } = principal
            && self.changed_role(key).is_some_and(|(now, _)| now < *role)
        {
            standing.end_lowered();
        }
        Some(standing)
    }

    /// The role of a key whose role was changed not long ago, and since when that is
    /// known here.
    pub(super) fn changed_role(&self, key: &ApiKeyId) -> Option<(Role, Instant)> {
        let changed = self.known.read().roles.get(key).copied();
        changed.filter(|(_, at)| at.elapsed() < KEPT)
    }

    pub(super) fn has_key(&self, key: &ApiKeyId) -> bool {
        self.known.read().keys.contains_key(key)
    }

    /// Whether all boots of a sandbox were revoked. A link may outlive what is
    /// kept here; the sandbox it names is gone then, too.
    pub(super) fn is_deleted(&self, sandbox: &SandboxId) -> bool {
        self.known.read().sandboxes.get(sandbox).is_some_and(|boots| boots.all)
    }

    pub(super) fn has_sandbox(&self, sandbox: &SandboxId, execution: &ExecutionId) -> bool {
        let known = self.known.read();
        known
            .sandboxes
            .get(sandbox)
            .is_some_and(|boots| boots.all || boots.some.contains(execution))
    }
}

impl Known {
    fn prune(&mut self) {
        self.inserts += 1;
        if self.inserts < PRUNE_EVERY {
            return;
        }
        self.inserts = 0;
        self.keys.retain(|_, at| at.elapsed() < KEPT);
        self.roles.retain(|_, (_, at)| at.elapsed() < KEPT);
        self.sandboxes.retain(|_, boots| boots.at.elapsed() < KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_proto::registry::v1::RevokedSandbox;
    use wolfpack_proto::types::v1::WatchBookmark;

    #[tokio::test]
    async fn one_boot_or_all_of_them() {
        let revocations = Revocations::new();
        let (sandbox, first, second) = (SandboxId::new(), ExecutionId::new(), ExecutionId::new());
        let event = |execution: &str| {
            Event::Sandbox(RevokedSandbox {
                sandbox: sandbox.name(),
                execution_id: execution.to_owned(),
            })
        };
        revocations.apply(event(first.as_str()));
        assert!(revocations.has_sandbox(&sandbox, &first));
        assert!(!revocations.has_sandbox(&sandbox, &second));
        assert!(!revocations.is_deleted(&sandbox));
        revocations.apply(event(""));
        assert!(revocations.has_sandbox(&sandbox, &second));
        assert!(revocations.is_deleted(&sandbox));
        assert!(!revocations.has_sandbox(&SandboxId::new(), &second));
    }

    #[tokio::test]
    async fn nobody_is_let_in_before_the_first_snapshot() {
        let revocations = Revocations::new();
        assert!(!revocations.ready(Duration::ZERO).await);
        revocations.apply(Event::Bookmark(WatchBookmark::default()));
        assert!(revocations.ready(Duration::ZERO).await, "it need not wait");
    }

    #[test]
    fn keys_are_known_by_id() {
        let revocations = Revocations::new();
        let key = ApiKeyId::new();
        revocations.apply(Event::ApiKey("nonsense".into()));
        revocations.apply(Event::ApiKey(key.name()));
        assert!(revocations.has_key(&key));
        assert!(!revocations.has_key(&ApiKeyId::new()));
    }
}

//! Credentials that are in use by open streams, and their end.
//!
//! A call is checked when it begins; a stream goes on for days. So each stream
//! waits here under its caller's credential, and a revocation wakes those that
//! it ends and nobody else. So does a role that is lowered, for streams that were
//! opened with a higher one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::SetOnce;
use tokio::time::Instant;
use wolfpack_types::{ApiKeyId, ExecutionId, Fault, Principal, Reason, Role, SandboxId};

use super::link::wrong_link;

/// The credentials in use. There is one entry per open stream, removed with the
/// stream, so memory follows the streams of the moment.
#[derive(Debug, Default)]
pub struct Standings {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    keys: HashMap<ApiKeyId, HashMap<u64, OfKey>>,
    sandboxes: HashMap<SandboxId, HashMap<u64, OfSandbox>>,
    next: u64,
}

/// What the caller of an ended stream is told, once it has ended.
type Ended = Arc<SetOnce<Fault>>;

/// A stream that a key's end ends.
#[derive(Debug)]
struct OfKey {
    /// What it was opened with.
    role: Role,
    ended: Ended,
}

/// A stream that a sandbox's end ends.
#[derive(Debug)]
struct OfSandbox {
    /// `None` for one that lives through boots.
    boot: Option<ExecutionId>,
    ended: Ended,
}

/// The credential of one stream's caller, as long as it is good.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Place>);

#[derive(Debug)]
struct Place {
    among: Arc<Standings>,
    credential: Credential,
    /// When it ends by itself.
    expires: Option<Instant>,
    number: u64,
    ended: Ended,
}

#[derive(Debug)]
enum Credential {
    Key(ApiKeyId),
    Sandbox(SandboxId),
    Link(SandboxId),
}

impl Standings {
    /// Waits for the end of the credential of `principal`; `None` where it has
    /// none that can be revoked. Whoever knows of older revocations looks for
    /// one after this, so that none is missed in between.
    #[must_use]
    pub fn hold(self: &Arc<Self>, principal: &Principal) -> Option<Standing> {
        let ended = Ended::default();
        let mut open = self.open.lock();
        open.next += 1;
        let number = open.next;
        let (credential, expires) = match principal {
            Principal::User { key, role, expires, .. } => {
                let waiting = OfKey { role: *role, ended: ended.clone() };
                open.keys.entry(key.clone()).or_default().insert(number, waiting);
                (Credential::Key(key.clone()), expires.map(instant))
            }
            Principal::Sandbox { sandbox, execution, .. } => {
                let waiting = OfSandbox { boot: Some(execution.clone()), ended: ended.clone() };
                open.sandboxes.entry(sandbox.clone()).or_default().insert(number, waiting);
                (Credential::Sandbox(sandbox.clone()), None)
            }
            Principal::Link { sandbox, expires, .. } => {
                let waiting = OfSandbox { boot: None, ended: ended.clone() };
                open.sandboxes.entry(sandbox.clone()).or_default().insert(number, waiting);
                (Credential::Link(sandbox.clone()), Some(instant(*expires)))
            }
            Principal::Service(_) | Principal::Wolf(_) | Principal::Anonymous => return None,
        };
        drop(open);
        let among = Arc::clone(self);
        Some(Standing(Arc::new(Place { among, credential, expires, number, ended })))
    }

    /// An API key was revoked.
    pub fn end_key(&self, key: &ApiKeyId) {
        let ended = self.open.lock().keys.remove(key);
        for waiting in ended.into_iter().flat_map(HashMap::into_values) {
            let _ = waiting.ended.set(wrong_key());
        }
    }

    /// An API key has this role now: what was opened with a higher one ends.
    pub fn change_role(&self, key: &ApiKeyId, role: Role) {
        let open = self.open.lock();
        let waiting = open.keys.get(key).into_iter().flat_map(HashMap::values);
        // Their places go with their streams.
        let ended: Vec<Ended> = waiting
            .filter(|waiting| waiting.role > role)
            .map(|waiting| waiting.ended.clone())
            .collect();
        drop(open);
        for ended in ended {
            let _ = ended.set(lowered_role());
        }
    }

    /// One boot of a sandbox was revoked, or all of them.
    pub fn end_sandbox(&self, sandbox: &SandboxId, boot: Option<&ExecutionId>) {
        let open = self.open.lock();
        let waiting = open.sandboxes.get(sandbox);
        // Their places go with their streams.
        let ended: Vec<(Ended, bool)> = waiting
            .into_iter()
            .flat_map(HashMap::values)
            .filter(|waiting| boot.is_none_or(|boot| waiting.boot.as_ref() == Some(boot)))
            .map(|waiting| (waiting.ended.clone(), waiting.boot.is_some()))
            .collect();
        drop(open);
        for (ended, has_boot) in ended {
            let _ = ended.set(if has_boot { ended_boot() } else { wrong_link() });
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let open = self.open.lock();
        open.keys.len() + open.sandboxes.len()
    }
}

impl Standing {
    /// Resolves once the credential is revoked, a key or a link is over, or a key's
    /// role is lower than it was, to what its caller is told. May be dropped at any
    /// time.
    pub async fn revoked(&self) -> Fault {
        let ended = self.0.ended.wait();
        let Some(expires) = self.0.expires else { return ended.await.clone() };
        match tokio::time::timeout_at(expires, ended).await {
            Ok(fault) => fault.clone(),
            Err(_) => self.0.credential.void(),
        }
    }

    /// Says that the credential was revoked already.
    pub fn end(&self) {
        let _ = self.0.ended.set(self.0.credential.void());
    }

    /// Says that the credential's role was lowered already.
    pub(super) fn end_lowered(&self) {
        let _ = self.0.ended.set(lowered_role());
    }
}

impl Credential {
    /// What its caller is told when it is good no more.
    fn void(&self) -> Fault {
        match self {
            Self::Key(_) => wrong_key(),
            Self::Sandbox(_) => ended_boot(),
            Self::Link(_) => wrong_link(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.among.open.lock();
        match &self.credential {
            Credential::Key(key) => {
                if let Some(waiting) = open.keys.get_mut(key) {
                    waiting.remove(&self.number);
                    if waiting.is_empty() {
                        open.keys.remove(key);
                    }
                }
            }
            Credential::Sandbox(sandbox) | Credential::Link(sandbox) => {
                if let Some(waiting) = open.sandboxes.get_mut(sandbox) {
                    waiting.remove(&self.number);
                    if waiting.is_empty() {
                        open.sandboxes.remove(sandbox);
                    }
                }
            }
        }
    }
}

/// A time on the clock of the runtime; one that has passed is now, and one that is
/// years away a year from now: no stream lives that long.
fn instant(time: SystemTime) -> Instant {
    let left = time.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now() + left.min(Duration::from_secs(365 * 24 * 3600))
}

/// What the caller with a key that does not work is told.
pub(super) fn wrong_key() -> Fault {
    Fault::new(
        Reason::ApiKeyInvalid,
        "the api key is unknown, expired or revoked; make a new one or check how it was copied",
    )
}

/// What the caller of a stream is told that it could not open again.
fn lowered_role() -> Fault {
    Fault::new(
        Reason::RoleTooLow,
        "the role of this api key was lowered after this was opened; open it again with what you may do now",
    )
}

/// What a sandbox with a revoked token is told.
pub(super) fn ended_boot() -> Fault {
    Fault::new(
        Reason::SandboxTokenRevoked,
        "the sandbox or this boot of it has ended; its token is void",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use wolfpack_types::{ProjectId, Role, UserId};

    fn reason(standing: &Standing) -> Option<Reason> {
        standing.revoked().now_or_never().map(|fault| fault.reason)
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_ends_with_its_sandbox_or_by_itself_and_not_with_a_boot() {
        let standings = Arc::new(Standings::default());
        let sandbox = SandboxId::new();
        let hour = Duration::from_secs(3600);
        let link = || {
            let principal = Principal::Link {
                sandbox: sandbox.clone(),
                port: 80,
                project: ProjectId::new(),
                creator: UserId::new(),
                expires: SystemTime::now() + hour,
            };
            standings.hold(&principal).unwrap()
        };
        let first = link();
        standings.end_sandbox(&sandbox, Some(&ExecutionId::new()));
        assert_eq!(reason(&first), None);
        standings.end_sandbox(&sandbox, None);
        assert_eq!(reason(&first), Some(Reason::LinkInvalid));
        let second = link();
        tokio::time::advance(hour / 2).await;
        assert_eq!(reason(&second), None);
        tokio::time::advance(hour).await;
        assert_eq!(reason(&second), Some(Reason::LinkInvalid));
        drop((first, second));
        assert_eq!(standings.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_ends_by_itself_where_it_has_an_end() {
        let standings = Arc::new(Standings::default());
        let hour = Duration::from_secs(3600);
        let held = [Some(SystemTime::now() + hour), None].map(|expires| {
            let principal = Principal::User {
                user: UserId::new(),
                key: ApiKeyId::new(),
                project: ProjectId::new(),
                role: Role::Viewer,
                platform_admin: false,
                expires,
            };
            standings.hold(&principal).unwrap()
        });
        tokio::time::advance(hour / 2).await;
        assert_eq!(held.each_ref().map(reason), [None, None]);
        tokio::time::advance(hour).await;
        assert_eq!(held.each_ref().map(reason), [Some(Reason::ApiKeyInvalid), None]);
    }

    #[test]
    fn a_lower_role_ends_what_was_opened_with_a_higher_one() {
        let standings = Arc::new(Standings::default());
        let (key, other) = (ApiKeyId::new(), ApiKeyId::new());
        let held = [
            (&key, Role::Admin),
            (&key, Role::Developer),
            (&key, Role::Viewer),
            (&other, Role::Admin),
        ]
        .map(|(key, role)| {
            let principal = Principal::User {
                user: UserId::new(),
                key: key.clone(),
                project: ProjectId::new(),
                role,
                platform_admin: false,
                expires: None,
            };
            standings.hold(&principal).unwrap()
        });
        let lowered = Some(Reason::RoleTooLow);
        standings.change_role(&key, Role::Developer);
        assert_eq!(held.each_ref().map(reason), [lowered, None, None, None]);
        standings.change_role(&key, Role::Admin);
        assert_eq!(held.each_ref().map(reason), [lowered, None, None, None]);
        standings.change_role(&key, Role::Viewer);
        assert_eq!(held.each_ref().map(reason), [lowered, lowered, None, None]);
        standings.end_key(&key);
        let wrong = Some(Reason::ApiKeyInvalid);
        assert_eq!(held.each_ref().map(reason), [lowered, lowered, wrong, None]);
        drop(held);
        assert_eq!(standings.len(), 0);
    }

    #[test]
    fn a_revocation_ends_those_it_names_and_nothing_is_left_behind() {
        let standings = Arc::new(Standings::default());
        let user = |key: &ApiKeyId| Principal::User {
            user: UserId::new(),
            key: key.clone(),
            project: ProjectId::new(),
            role: Role::Viewer,
            platform_admin: false,
            expires: None,
        };
        let (key, other) = (ApiKeyId::new(), ApiKeyId::new());
        let held: Vec<_> =
            [&key, &key, &other].map(|key| standings.hold(&user(key)).unwrap()).into();
        standings.end_key(&key);
        let ended: Vec<_> = held.iter().map(reason).collect();
        assert_eq!(ended, [Some(Reason::ApiKeyInvalid), Some(Reason::ApiKeyInvalid), None]);

        let (sandbox, first, second) = (SandboxId::new(), ExecutionId::new(), ExecutionId::new());
        let boots = [&first, &second].map(|execution| {
            let principal = Principal::Sandbox {
                sandbox: sandbox.clone(),
                project: ProjectId::new(),
                execution: execution.clone(),
            };
            standings.hold(&principal).unwrap()
        });
        standings.end_sandbox(&sandbox, Some(&first));
        assert_eq!(reason(&boots[0]), Some(Reason::SandboxTokenRevoked));
        assert_eq!(reason(&boots[1]), None);
        standings.end_sandbox(&sandbox, None);
        assert_eq!(reason(&boots[1]), Some(Reason::SandboxTokenRevoked));

        assert!(standings.hold(&Principal::Anonymous).is_none());
        drop((held, boots));
        assert_eq!(standings.len(), 0);
    }
}

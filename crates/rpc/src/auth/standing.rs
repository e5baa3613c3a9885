//! Credentials that are in use by open streams, and their end.
//!
//! A call is checked when it begins; a stream goes on for days. So each stream
//! waits here under its caller's credential, and a revocation wakes those that
//! it ends and nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wolfpack_types::{ApiKeyId, ExecutionId, Fault, Principal, Reason, SandboxId};

use super::link::wrong_link;

/// The credentials in use. There is one entry per open stream, removed with the
/// stream, so memory follows the streams of the moment.
#[derive(Debug, Default)]
pub struct Standings {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    keys: HashMap<ApiKeyId, HashMap<u64, CancellationToken>>,
    sandboxes: HashMap<SandboxId, HashMap<u64, Waiting>>,
    next: u64,
}

/// A stream that a sandbox's end ends.
#[derive(Debug)]
struct Waiting {
    /// `None` for one that lives through boots.
    boot: Option<ExecutionId>,
    ended: CancellationToken,
}

/// The credential of one stream's caller, as long as it is good.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Place>);

#[derive(Debug)]
struct Place {
    among: Arc<Standings>,
    credential: Credential,
    number: u64,
    ended: CancellationToken,
}

#[derive(Debug)]
enum Credential {
    Key(ApiKeyId, Option<Instant>),
    Sandbox(SandboxId),
    Link(SandboxId, Instant),
}

impl Standings {
    /// Waits for the end of the credential of `principal`; `None` where it has
    /// none that can be revoked. Whoever knows of older revocations looks for
    /// one after this, so that none is missed in between.
    #[must_use]
    pub fn hold(self: &Arc<Self>, principal: &Principal) -> Option<Standing> {
        let ended = CancellationToken::new();
        let mut open = self.open.lock();
        open.next += 1;
        let number = open.next;
        let credential = match principal {
            Principal::User { key, expires, .. } => {
                open.keys.entry(key.clone()).or_default().insert(number, ended.clone());
                Credential::Key(key.clone(), expires.map(instant))
            }
            Principal::Sandbox { sandbox, execution, .. } => {
                let waiting = Waiting { boot: Some(execution.clone()), ended: ended.clone() };
                open.sandboxes.entry(sandbox.clone()).or_default().insert(number, waiting);
                Credential::Sandbox(sandbox.clone())
            }
            Principal::Link { sandbox, expires, .. } => {
                let waiting = Waiting { boot: None, ended: ended.clone() };
                open.sandboxes.entry(sandbox.clone()).or_default().insert(number, waiting);
                Credential::Link(sandbox.clone(), instant(*expires))
            }
            Principal::Service(_) | Principal::Wolf(_) | Principal::Anonymous => return None,
        };
        drop(open);
        let among = Arc::clone(self);
        Some(Standing(Arc::new(Place { among, credential, number, ended })))
    }

    /// An API key was revoked.
    pub fn end_key(&self, key: &ApiKeyId) {
        let ended = self.open.lock().keys.remove(key);
        for token in ended.into_iter().flat_map(HashMap::into_values) {
            token.cancel();
        }
    }

    /// One boot of a sandbox was revoked, or all of them.
    pub fn end_sandbox(&self, sandbox: &SandboxId, boot: Option<&ExecutionId>) {
        let open = self.open.lock();
        let waiting = open.sandboxes.get(sandbox);
        // Their places go with their streams.
        let ended: Vec<CancellationToken> = waiting
            .into_iter()
            .flat_map(HashMap::values)
            .filter(|waiting| boot.is_none_or(|boot| waiting.boot.as_ref() == Some(boot)))
            .map(|waiting| waiting.ended.clone())
            .collect();
        drop(open);
        for token in ended {
            token.cancel();
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let open = self.open.lock();
        open.keys.len() + open.sandboxes.len()
    }
}

impl Standing {
    /// Resolves once the credential is revoked, or a key or a link is over, to what
    /// its caller is told. May be dropped at any time.
    pub async fn revoked(&self) -> Fault {
        match &self.0.credential {
            Credential::Key(_, None) => {
                self.0.ended.cancelled().await;
                wrong_key()
            }
            Credential::Key(_, Some(expires)) => {
                let _ = tokio::time::timeout_at(*expires, self.0.ended.cancelled()).await;
                wrong_key()
            }
            Credential::Sandbox(_) => {
                self.0.ended.cancelled().await;
                ended_boot()
            }
            Credential::Link(_, expires) => {
                let _ = tokio::time::timeout_at(*expires, self.0.ended.cancelled()).await;
                wrong_link()
            }
        }
    }

    /// Says that the credential was revoked already.
    pub fn end(&self) {
        self.0.ended.cancel();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.among.open.lock();
        match &self.credential {
            Credential::Key(key, _) => {
                if let Some(waiting) = open.keys.get_mut(key) {
                    waiting.remove(&self.number);
                    if waiting.is_empty() {
                        open.keys.remove(key);
                    }
                }
            }
            Credential::Sandbox(sandbox) | Credential::Link(sandbox, _) => {
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

//! The authority of every service but the registry.
//!
//! API keys are introspected at the registry and remembered for a few seconds;
//! sandbox tokens are verified here with the registry's public keys. Both hear
//! of revocations and of changed roles at once, as the registry pushes them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use moka::Expiry;
use moka::future::Cache;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::{
    IntrospectRequest, IntrospectResponse, Role as WireRole, WatchRevocationsRequest,
};
use wolfpack_runtime::{BoxError, Context, clock};
use wolfpack_types::{ApiKeyId, Fault, Principal, ProjectId, Reason, Role, UserId};

use super::link::wrong_link;
use super::revocations::Revocations;
use super::signing_keys::SigningKeys;
use super::standing::{ended_boot, wrong_key};
use super::{Authority, LinkClaims, SandboxClaims, Standing, TokenVerifier};
use crate::client::RpcChannel;
use crate::error::from_status;

/// How long a good key is remembered.
const POSITIVE: Duration = Duration::from_secs(10);
/// How long a wrong key is: long enough against a loop, short enough for a
/// person who has just made the key.
const NEGATIVE: Duration = Duration::from_secs(2);
/// Keys remembered at once.
const CAPACITY: u64 = 100_000;
/// How long the registry has to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a caller waits for the first snapshot of revocations after a start.
const FIRST_SYNC: Duration = Duration::from_secs(5);

/// Asks the registry, remembers, and hears of revocations.
pub struct RemoteAuthority {
    registry: RpcChannel,
    // By SHA-256, so that no key lies in memory longer than its request.
    answers: Cache<[u8; 32], Answer>,
    signing_keys: SigningKeys,
    verifier: TokenVerifier,
    revocations: Arc<Revocations>,
}

#[derive(Clone)]
enum Answer {
    /// And when it was asked for.
    Good(Principal, Instant),
    Wrong,
}

struct Ttl;

impl Expiry<[u8; 32], Answer> for Ttl {
    fn expire_after_create(&self, _: &[u8; 32], answer: &Answer, _: Instant) -> Option<Duration> {
        Some(match answer {
            Answer::Good(..) => POSITIVE,
            Answer::Wrong => NEGATIVE,
        })
    }
}

impl RemoteAuthority {
    /// An authority over a channel to the registry. It watches revocations in
    /// a task of the context's supervisor until that shuts down.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "it keeps the channel, with another deadline")]
    pub fn new(registry: RpcChannel, context: &Context) -> Arc<Self> {
        let revocations = Arc::new(Revocations::new());
        let watched = registry.without_deadline();
        let known = Arc::clone(&revocations);
        let stop = context.supervisor.token();
        context.supervisor.spawn_restarting("rpc.revocations", move || {
            let (watched, known, stop) = (watched.clone(), Arc::clone(&known), stop.clone());
            async move { stop.run_until_cancelled(watch(watched, known)).await.unwrap_or(Ok(())) }
        });
        let registry = registry.with_deadline(DEADLINE);
        Arc::new(Self {
            answers: Cache::builder().max_capacity(CAPACITY).expire_after(Ttl).build(),
            signing_keys: SigningKeys::new(registry.clone()),
            verifier: TokenVerifier::default(),
            registry,
            revocations,
        })
    }

    /// Waits for the first snapshot of revocations: without it a deleted sandbox
    /// could get in.
    async fn synced(&self) -> Result<(), Fault> {
        if self.revocations.ready(FIRST_SYNC).await {
            return Ok(());
        }
        Err(Fault::new(
            Reason::DependencyUnavailable,
            "revocations are not known yet, so the token cannot be checked; try again",
        )
        .retry_in(Duration::from_secs(1)))
    }

    async fn introspect(&self, key: &str) -> Result<Answer, Fault> {
        let request = IntrospectRequest { key: key.to_owned() };
        let asked = Instant::now();
        match IdentityServiceClient::new(self.registry.clone()).introspect(request).await {
            Ok(answer) => principal(&answer.into_inner()).map(|user| Answer::Good(user, asked)),
            Err(status) => {
                let fault = from_status(&status);
                match fault.reason {
                    // A key of impossible form is as wrong as an unknown one.
                    Reason::ApiKeyInvalid | Reason::RequestInvalid => Ok(Answer::Wrong),
                    // What the registry thinks of *us* is not the caller's business.
                    _ => Err(Fault::new(
                        Reason::DependencyUnavailable,
                        "the api key cannot be checked now; try again",
                    )
                    .retry_in(Duration::from_secs(1))
                    .caused_by(fault)),
                }
            }
        }
    }
}

#[async_trait]
impl Authority for RemoteAuthority {
    async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, key.as_bytes()).as_ref());
        // Callers with the same key wait for one answer; failures are not kept.
        let ask = || self.answers.try_get_with(hash, self.introspect(key));
        let mut answer = ask().await.map_err(|fault| (*fault).clone())?;
        // A role that was raised since is asked for anew.
        if let Answer::Good(Principal::User { key, role, .. }, asked) = &answer
            && self
                .revocations
                .changed_role(key)
                .is_some_and(|(now, at)| now > *role && at >= *asked)
        {
            self.answers.invalidate(&hash).await;
            answer = ask().await.map_err(|fault| (*fault).clone())?;
        }
        // One that was lowered counts at once, whatever is remembered here or there.
        // The one that was pushed is the older one for a moment after a role was
        // raised; it counts all the same.
        if let Answer::Good(Principal::User { key, role, .. }, _) = &mut answer
            && let Some((pushed, _)) = self.revocations.changed_role(key)
        {
            *role = pushed.min(*role);
        }
        match answer {
            // The answer may be older than a revocation that has arrived since, and
            // than the end of the key.
            Answer::Good(Principal::User { key, expires, .. }, _)
                if self.revocations.has_key(&key)
                    || expires.is_some_and(|end| clock::now() >= end) =>
            {
                Err(wrong_key())
            }
            Answer::Good(principal, _) => Ok(principal),
            Answer::Wrong => Err(wrong_key()),
        }
    }

    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault> {
        let key_id = SandboxClaims::key_id(token)?;
        let Some(key) = self.signing_keys.get(&key_id).await? else {
            return Err(Fault::new(
                Reason::SandboxTokenInvalid,
                "the sandbox token is signed by no key of this fleet; start the sandbox anew",
            ));
        };
        let principal = self.verifier.verify(token, &key)?;
        self.synced().await?;
        match &principal {
            Principal::Sandbox { sandbox, execution, .. }
                if self.revocations.has_sandbox(sandbox, execution) =>
            {
                Err(ended_boot())
            }
            _ => Ok(principal),
        }
    }

    async fn link(&self, link: &str) -> Result<Principal, Fault> {
        let key_id = LinkClaims::key_id(link)?;
        let key = self.signing_keys.get(&key_id).await?.ok_or_else(wrong_link)?;
        let principal = LinkClaims::verify(link, &key)?.principal()?;
        self.synced().await?;
        match &principal {
            Principal::Link { sandbox, .. } if self.revocations.is_deleted(sandbox) => {
                Err(wrong_link())
            }
            _ => Ok(principal),
        }
    }

    fn standing(&self, principal: &Principal) -> Option<Standing> {
        self.revocations.standing(principal)
    }
}

fn principal(answer: &IntrospectResponse) -> Result<Principal, Fault> {
    let expires = answer.expire_time.map(SystemTime::try_from).transpose();
    let role =
        role_of(answer.role()).ok_or_else(|| Fault::internal("introspection answered no role"))?;
    Ok(Principal::User {
        user: UserId::from_name(&answer.user).map_err(Fault::internal)?,
        key: ApiKeyId::from_name(&answer.api_key).map_err(Fault::internal)?,
        project: ProjectId::from_name(&answer.project).map_err(Fault::internal)?,
        role,
        platform_admin: answer.platform_admin,
        expires: expires.map_err(Fault::internal)?,
    })
}

pub(super) fn role_of(role: WireRole) -> Option<Role> {
    match role {
        WireRole::Viewer => Some(Role::Viewer),
        WireRole::Developer => Some(Role::Developer),
        WireRole::Admin => Some(Role::Admin),
        WireRole::Unspecified => None,
    }
}

/// Follows the registry's stream until it ends; the supervisor starts it again.
async fn watch(registry: RpcChannel, known: Arc<Revocations>) -> Result<(), BoxError> {
    let mut stream = IdentityServiceClient::new(registry)
        .watch_revocations(WatchRevocationsRequest {})
        .await?
        .into_inner();
    while let Some(message) = stream.message().await? {
        if let Some(event) = message.event {
            known.apply(event);
        }
    }
    Err("the stream of revocations ended".into())
}

//! The registry's own authority: keys and tokens straight from its store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::future::Cache;
use wolfpack_rpc::auth::Authority;
use wolfpack_runtime::clock;
use wolfpack_types::{ApiKeyId, Fault, Principal};

use crate::domain::access::role_of_word;
use crate::domain::api_key::ApiKeySecret;
use crate::domain::time::Micros;
use crate::sandbox_tokens::SandboxTokens;
use crate::store::{Database, KnownKey, invalid_key, role_row_id};
use crate::watch::{Feed, Revocations};

/// A key that was good is believed for this long. Revocations and changed roles do
/// not wait for it.
const BELIEVED: Duration = Duration::from_secs(5);
const CAPACITY: u64 = 10_000;

/// See the module.
pub(crate) struct LocalAuthority {
    database: Database,
    tokens: Arc<SandboxTokens>,
    revocations: Arc<Feed<Revocations>>,
    // By hash, so that no key lies in memory longer than its request.
    known: Cache<[u8; 32], KnownKey>,
}

impl LocalAuthority {
    pub(crate) fn new(
        database: Database,
        tokens: Arc<SandboxTokens>,
        revocations: Arc<Feed<Revocations>>,
    ) -> Self {
        let known = Cache::builder().max_capacity(CAPACITY).time_to_live(BELIEVED).build();
        Self { database, tokens, revocations, known }
    }

    /// Whose key this is and when it ends; `API_KEY_INVALID` for one that does
    /// not work now.
    pub(crate) async fn known_key(&self, key: &str) -> Result<KnownKey, Fault> {
        let secret = ApiKeySecret::parse(key).map_err(|_| invalid_key())?;
        let load = || async { self.database.authenticate(&secret).await.map_err(Fault::from) };
        let hash = *blake3::hash(key.as_bytes()).as_bytes();
        let mut known =
            self.known.try_get_with(hash, load()).await.map_err(|fault| (*fault).clone())?;
        if self.has_other_role(&secret.id, &known.principal) {
            self.known.invalidate(&hash).await;
            known =
                self.known.try_get_with(hash, load()).await.map_err(|fault| (*fault).clone())?;
        }
        let over = known.expire_time.is_some_and(|end| Micros::from(clock::now()) >= end);
        // What is remembered may be older than a revocation.
        if over || self.revocations.get(&secret.id.name()).is_some() {
            return Err(invalid_key());
        }
        Ok(known)
    }

    /// Whether the key's role was changed to another than this.
    fn has_other_role(&self, key: &ApiKeyId, principal: &Principal) -> bool {
        let changed = self.revocations.get(&role_row_id(key));
        let role = changed.and_then(|row| row.role.as_deref().map(role_of_word));
        role.is_some() && principal.role() != role
    }

    /// Forgets what was believed of all keys, after a role has changed.
    pub(crate) fn forget(&self) {
        self.known.invalidate_all();
    }
}

#[async_trait]
impl Authority for LocalAuthority {
    async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
        self.known_key(key).await.map(|known| known.principal)
    }

    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault> {
        self.tokens.verify(token).await
    }
}

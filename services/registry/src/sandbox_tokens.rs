//! Signs and verifies the tokens that sandboxes are known by, and signs links.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jsonwebtoken::EncodingKey;
use tokio::sync::Mutex;
use wolfpack_proto::registry::v1::SigningKey;
use wolfpack_rpc::auth::{LinkClaims, SandboxClaims};
use wolfpack_runtime::clock;
use wolfpack_types::{ExecutionId, Fault, Principal, ProjectId, Reason, SandboxId, UserId};

use crate::store::{self, Database, Revoked, SigningKeyRow};
use crate::watch::{Feed, Revocations};

/// An unknown key id makes us look at the database at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A token and when it ends.
pub(crate) struct Signed {
    pub(crate) token: String,
    pub(crate) expire_time: prost_types::Timestamp,
}

/// See the module.
pub(crate) struct SandboxTokens {
    database: Database,
    revocations: Arc<Feed<Revocations>>,
    life: Duration,
    key_life: Duration,
    /// The signing one first.
    keys: ArcSwap<Vec<SigningKeyRow>>,
    looked: Mutex<Instant>,
}

impl SandboxTokens {
    pub(crate) async fn open(
        database: Database,
        revocations: Arc<Feed<Revocations>>,
        life: Duration,
        key_life: Duration,
    ) -> Result<Self, store::Error> {
        let keys = ArcSwap::from_pointee(database.signing_keys(key_life).await?);
        Ok(Self { database, revocations, life, key_life, keys, looked: Mutex::new(Instant::now()) })
    }

    /// Reads the keys anew, and makes a fresh one when it is time.
    pub(crate) async fn rotate(&self) -> Result<(), store::Error> {
        self.keys.store(Arc::new(self.database.signing_keys(self.key_life).await?));
        Ok(())
    }

    /// The public halves, the signing one first.
    pub(crate) fn public_keys(&self) -> Vec<SigningKey> {
        let keys = self.keys.load();
        keys.iter()
            .map(|key| SigningKey {
                key_id: key.id.clone(),
                public_key: key.public_key.to_vec().into(),
            })
            .collect()
    }

    /// Makes a token for a boot; `SANDBOX_TOKEN_REVOKED` for one that ended:
    /// nobody would accept it.
    pub(crate) async fn sign(
        &self,
        sandbox: &SandboxId,
        project: &ProjectId,
        execution: &ExecutionId,
    ) -> Result<Signed, Fault> {
        if self.database.is_sandbox_revoked(sandbox, execution).await? {
            return Err(revoked(sandbox));
        }
        let claims = SandboxClaims::new(sandbox, project, execution, clock::now(), self.life);
        let token = self.with_key(|id, key| claims.sign(id, key))?;
        Ok(Signed { token, expire_time: ends(claims.exp) })
    }

    /// Makes a link to a port of a sandbox; `SANDBOX_TOKEN_REVOKED` for one that
    /// was deleted: nobody would accept it.
    pub(crate) async fn sign_link(
        &self,
        sandbox: &SandboxId,
        port: u16,
        project: &ProjectId,
        creator: &UserId,
        life: Duration,
    ) -> Result<Signed, Fault> {
        if self.database.is_sandbox_deleted(sandbox).await? {
            return Err(revoked(sandbox));
        }
        let claims = LinkClaims::new(sandbox, port, project, creator, clock::now(), life);
        let token = self.with_key(|id, key| claims.sign(id, key))?;
        Ok(Signed { token, expire_time: ends(claims.exp) })
    }

    fn with_key(
        &self,
        sign: impl FnOnce(&str, &EncodingKey) -> Result<String, Fault>,
    ) -> Result<String, Fault> {
        let keys = self.keys.load();
        let key = keys.first().ok_or_else(|| Fault::internal("there is no signing key"))?;
        sign(&key.id, &EncodingKey::from_ed_der(&key.private_key))
    }

    /// Which sandbox a token names.
    pub(crate) async fn verify(&self, token: &str) -> Result<Principal, Fault> {
        let key_id = SandboxClaims::key_id(token)?;
        let key = self.key(&key_id).await?.ok_or_else(unknown_key)?;
        let principal = SandboxClaims::verify(token, &key)?.principal()?;
        if let Principal::Sandbox { sandbox, execution, .. } = &principal
            && self.is_revoked(sandbox, execution)
        {
            return Err(revoked(sandbox));
        }
        Ok(principal)
    }

    fn is_revoked(&self, sandbox: &SandboxId, execution: &ExecutionId) -> bool {
        let all = Revoked::Sandbox(sandbox.clone(), None);
        let one = Revoked::Sandbox(sandbox.clone(), Some(execution.clone()));
        [all, one].iter().any(|revoked| self.revocations.get(&revoked.row_id()).is_some())
    }

    async fn key(&self, id: &str) -> Result<Option<[u8; 32]>, Fault> {
        let find = || self.keys.load().iter().find(|key| key.id == id).map(|key| key.public_key);
        if let Some(key) = find() {
            return Ok(Some(key));
        }
        // Another replica may have made a fresh key.
        let mut looked = self.looked.lock().await;
        if looked.elapsed() >= LOOK_AGAIN {
            self.rotate().await?;
            *looked = Instant::now();
        }
        Ok(find())
    }
}

fn ends(exp: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(exp).unwrap_or(i64::MAX), nanos: 0 }
}

fn unknown_key() -> Fault {
    Fault::new(
        Reason::SandboxTokenInvalid,
        "the sandbox token is signed by no key of this fleet; start the sandbox anew",
    )
}

fn revoked(sandbox: &SandboxId) -> Fault {
    Fault::new(
        Reason::SandboxTokenRevoked,
        "the sandbox or this boot of it has ended; its token is void",
    )
    .about(sandbox.name())
}

//! Who takes part in a benchmark: sandboxes, by tokens that are verified as in
//! production, and a user who dials.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use wolfpack_rpc::Authority;
use wolfpack_rpc::auth::{SandboxClaims, TokenVerifier};
use wolfpack_types::{
    ApiKeyId, ExecutionId, Fault, Principal, ProjectId, Reason, Role, SandboxId, UserId,
};

const KEY_ID: &str = "bench";
/// Longer than any run.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Makes tokens. Written down, it is handed to a part that makes them, too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mint {
    /// The private key, base64.
    pkcs8: String,
    project: String,
}

/// Who is let in by a broker that has no registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Known {
    /// What verifies the tokens, base64.
    token_key: String,
    /// A developer's key.
    pub(crate) api_key: String,
    project: String,
}

impl Mint {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("no key can be made"))?;
        Ok(Self { pkcs8: STANDARD.encode(document.as_ref()), project: ProjectId::new().name() })
    }

    /// What a broker must know, with a fresh key of a developer of the project.
    pub(crate) fn known(&self) -> anyhow::Result<Known> {
        let pair = Ed25519KeyPair::from_pkcs8(&STANDARD.decode(&self.pkcs8)?)
            .map_err(|_| anyhow::anyhow!("the key cannot be read"))?;
        Ok(Known {
            token_key: STANDARD.encode(pair.public_key().as_ref()),
            api_key: format!("wp_bench_{}", uuid::Uuid::new_v4().simple()),
            project: self.project.clone(),
        })
    }

    /// A token of a sandbox.
    pub(crate) fn token(&self, sandbox: &SandboxId) -> anyhow::Result<String> {
        let project = ProjectId::from_name(&self.project)?;
        let now = SystemTime::now();
        let claims = SandboxClaims::new(sandbox, &project, &ExecutionId::new(), now, TOKEN_LIFE);
        let key = jsonwebtoken::EncodingKey::from_ed_der(&STANDARD.decode(&self.pkcs8)?);
        claims.sign(KEY_ID, &key).map_err(|fault| anyhow::anyhow!("{fault}"))
    }
}

/// Knows one key for tokens, one API key and no revocations.
pub(crate) struct Tokens {
    key: [u8; 32],
    verifier: TokenVerifier,
    api_key: String,
    user: Principal,
}

impl Tokens {
    pub(crate) fn of(known: &Known) -> anyhow::Result<Self> {
        let key = STANDARD.decode(&known.token_key)?.try_into();
        let key = key.ok().context("a public key has 32 bytes")?;
        let user = Principal::User {
            user: UserId::new(),
            key: ApiKeyId::new(),
            project: ProjectId::from_name(&known.project)?,
            role: Role::Developer,
            platform_admin: false,
            expires: None,
        };
        let api_key = known.api_key.clone();
        Ok(Self { key, verifier: TokenVerifier::default(), api_key, user })
    }
}

#[async_trait]
impl Authority for Tokens {
    async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
        if key == self.api_key {
            return Ok(self.user.clone());
        }
        Err(Fault::new(Reason::ApiKeyInvalid, "the benchmark has one key, and it is another"))
    }

    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault> {
        self.verifier.verify(token, &self.key)
    }
}

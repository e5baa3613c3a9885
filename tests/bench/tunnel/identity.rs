//! Who the agents of the benchmark are: sandboxes, by tokens that are verified
//! as in production.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use wolfpack_rpc::Authority;
use wolfpack_rpc::auth::{SandboxClaims, TokenVerifier};
use wolfpack_types::{ExecutionId, Fault, Principal, ProjectId, Reason, SandboxId};

const KEY_ID: &str = "bench";

/// Makes tokens.
pub(super) struct Mint {
    pkcs8: Vec<u8>,
    public: String,
    project: ProjectId,
}

impl Mint {
    pub(super) fn new() -> anyhow::Result<Self> {
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("no key can be made"))?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref())
            .map_err(|_| anyhow::anyhow!("the key cannot be read"))?;
        Ok(Self {
            public: STANDARD.encode(pair.public_key().as_ref()),
            pkcs8: document.as_ref().to_vec(),
            project: ProjectId::new(),
        })
    }

    /// What verifies the tokens, base64.
    pub(super) fn public(&self) -> &str {
        &self.public
    }

    /// A token of a sandbox.
    pub(super) fn token(&self, sandbox: &SandboxId) -> anyhow::Result<String> {
        let claims = SandboxClaims::new(
            sandbox,
            &self.project,
            &ExecutionId::new(),
            std::time::SystemTime::now(),
            Duration::from_secs(12 * 3600),
        );
        let key = jsonwebtoken::EncodingKey::from_ed_der(&self.pkcs8);
        claims.sign(KEY_ID, &key).map_err(|fault| anyhow::anyhow!("{fault}"))
    }
}

/// Knows one key and no revocations.
pub(super) struct Tokens {
    key: [u8; 32],
    verifier: TokenVerifier,
}

impl Tokens {
    pub(super) fn verifier(public: &str) -> anyhow::Result<Self> {
        let key = STANDARD.decode(public)?.try_into();
        let key = key.ok().context("a public key has 32 bytes")?;
        Ok(Self { key, verifier: TokenVerifier::default() })
    }
}

#[async_trait]
impl Authority for Tokens {
    async fn api_key(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::ApiKeyInvalid, "the benchmark has no keys"))
    }

    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault> {
        self.verifier.verify(token, &self.key)
    }
}

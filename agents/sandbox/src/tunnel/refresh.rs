//! Keeps the token fresh: asked for anew at four fifths of its life, written
//! back, and shown from then on.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use tracing::{info, warn};
use wolfpack_proto::registry::v1::RefreshSandboxTokenRequest;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_rpc::from_status;
use wolfpack_runtime::clock;
use wolfpack_types::{Fault, Reason};

use super::Uplink;
use crate::boot::Token;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(60);
/// A token's times are of the clock on the wall, which may be set: look at it
/// again at least this often.
const LOOK: Duration = Duration::from_secs(60);

/// Who gives a fresh token for the one that is shown.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// Asks for one. At most a few seconds.
    ///
    /// # Errors
    /// `SANDBOX_TOKEN_REVOKED` when the sandbox or this boot has ended.
    async fn fresh(&self) -> Result<Token, Fault>;
}

/// The registry, through the gateway.
pub struct Registry {
    uplink: Uplink,
    gateway: String,
}

impl Registry {
    /// The registry behind the gateway at `gateway`.
    #[must_use]
    pub fn new(uplink: Uplink, gateway: String) -> Self {
        Self { uplink, gateway }
    }
}

#[async_trait]
impl Issuer for Registry {
    async fn fresh(&self) -> Result<Token, Fault> {
        let away = |words: String| Fault::new(Reason::DependencyUnavailable, words);
        let addresses =
            self.uplink.locate(&self.gateway).await.map_err(|error| away(error.to_string()))?;
        let mut last = away("the gateway has no address".to_owned());
        for address in addresses {
            let channel = self.uplink.gateway(&address).map_err(|error| away(error.to_string()))?;
            match IdentityServiceClient::new(channel)
                .refresh_sandbox_token(RefreshSandboxTokenRequest {})
                .await
            {
                Ok(answer) => {
                    return Token::parse(&answer.into_inner().token).map_err(|error| {
                        Fault::new(
                            Reason::SandboxTokenInvalid,
                            format!("the registry sent no token: {error}"),
                        )
                    });
                }
                Err(status) => last = from_status(&status),
            }
            if last.reason != Reason::DependencyUnavailable {
                break;
            }
        }
        Err(last)
    }
}

/// Refreshes `token` whenever it is due; never returns. A failed attempt is
/// made again after 1 s, 2 s, ... 60 s, each with jitter, also after the token
/// has expired: the wolf's agent may have written another one meanwhile, which
/// is taken instead.
pub async fn keep_fresh(uplink: Uplink, issuer: impl Issuer, mut token: Token) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let due = token.refresh_in(clock::now());
        if !due.is_zero() {
            tokio::time::sleep(due.min(LOOK)).await;
            continue;
        }
        match next(&uplink, &issuer, &token).await {
            Ok(fresh) => {
                info!(expires_in_s = left(&fresh).as_secs(), "the sandbox's token was refreshed");
                uplink.token.send_replace(fresh.secret().expose_secret().into());
                token = fresh;
                backoff = FIRST_BACKOFF;
                // An issuer that gives out what is already due must not be asked in a loop.
                tokio::time::sleep(FIRST_BACKOFF).await;
            }
            Err(fault) => {
                warn!(reason = %fault.reason, left_s = left(&token).as_secs(), "the sandbox's token was not refreshed: {}", fault.message);
                tokio::time::sleep(backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                backoff = (backoff * 2).min(LAST_BACKOFF);
            }
        }
    }
}

async fn next(uplink: &Uplink, issuer: &impl Issuer, token: &Token) -> Result<Token, Fault> {
    if let Ok(on_disk) = uplink.dir.token()
        && on_disk.expires() > token.expires()
    {
        return Ok(on_disk);
    }
    let fresh = issuer.fresh().await?;
    if let Err(error) = uplink.dir.store_token(&fresh) {
        // It works all the same until the agent starts again.
        warn!(%error, "the fresh token was not written back");
    }
    Ok(fresh)
}

fn left(token: &Token) -> Duration {
    token.expires().duration_since(clock::now().max(SystemTime::UNIX_EPOCH)).unwrap_or_default()
}

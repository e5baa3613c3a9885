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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::UNIX_EPOCH;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use wolfpack_rpc::ClientTls;

    use super::*;
    use crate::boot::BootDir;
    use crate::resolve::Resolver;

    /// Issued and expiring so many seconds from now.
    fn token(issued: i64, expires: i64) -> Token {
        let now =
            i64::try_from(clock::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let claims = format!(r#"{{"iat":{},"exp":{}}}"#, now + issued, now + expires);
        Token::parse(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))).unwrap()
    }

    fn uplink(folder: &std::path::Path, token: &Token) -> Uplink {
        let root = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
        let tls = ClientTls::roots_only(root.cert.pem().as_bytes()).unwrap();
        Uplink::new(Resolver::default(), tls, BootDir::at(folder), token)
    }

    struct Answers {
        asked: AtomicUsize,
        fresh: Option<Token>,
    }

    #[async_trait]
    impl Issuer for std::sync::Arc<Answers> {
        async fn fresh(&self) -> Result<Token, Fault> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let revoked = || Fault::new(Reason::SandboxTokenRevoked, "this boot has ended");
            self.fresh.clone().ok_or_else(revoked)
        }
    }

    #[tokio::test]
    async fn a_due_token_is_replaced_everywhere_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let (old, fresh) = (token(-90, 10), token(0, 3600));
        let uplink = uplink(folder.path(), &old);
        uplink.dir.store_token(&old).unwrap();
        let mut shown = uplink.token.subscribe();
        let issuer =
            std::sync::Arc::new(Answers { asked: AtomicUsize::new(0), fresh: Some(fresh.clone()) });
        let keeping = tokio::spawn(keep_fresh(uplink.clone(), issuer.clone(), old));
        tokio::time::timeout(Duration::from_secs(5), shown.changed()).await.unwrap().unwrap();
        assert_eq!(shown.borrow().expose_secret(), fresh.secret().expose_secret());
        assert_eq!(uplink.dir.token().unwrap(), fresh);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "it is not due any more");
        keeping.abort();
    }

    #[tokio::test]
    async fn a_fresher_one_on_disk_is_taken_when_none_is_given_out() {
        let folder = tempfile::tempdir().unwrap();
        let old = token(-90, 0);
        let uplink = uplink(folder.path(), &old);
        let mut shown = uplink.token.subscribe();
        let issuer = std::sync::Arc::new(Answers { asked: AtomicUsize::new(0), fresh: None });
        let keeping = tokio::spawn(keep_fresh(uplink.clone(), issuer.clone(), old));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "a refusal is not asked for in a loop");
        let written = token(0, 3600);
        uplink.dir.store_token(&written).unwrap();
        tokio::time::timeout(Duration::from_secs(10), shown.changed()).await.unwrap().unwrap();
        assert_eq!(shown.borrow().expose_secret(), written.secret().expose_secret());
        keeping.abort();
    }
}

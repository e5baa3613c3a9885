//! From a connection and headers to a principal.

use http::{HeaderMap, header};
use wolfpack_types::{Fault, Principal, Reason, WolfId};

use super::{Authority, LINK_PREFIX};

/// On whose behalf the broker relays a wolf's call.
pub(crate) const ON_BEHALF_OF: &str = "wolfpack-on-behalf-of";

/// The service that may relay for wolves.
const RELAY: &str = "tunnel-broker";

/// The service whose certificate proves nothing about who calls: it passes on
/// what the public sends, so without a bearer a call of its is nobody's.
const FRONT: &str = "gateway";

/// What a connection proves by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Nothing: no certificate.
    #[default]
    Unknown,
    /// A certificate of our roots, or a tunnel, that names a principal.
    Known(Principal),
    /// A certificate of our roots that names nobody.
    Nameless,
}

/// Finds out who calls.
///
/// # Errors
/// `UNAUTHENTICATED` reasons for a credential that is there but wrong.
pub(crate) async fn identify(
    peer: &Peer,
    headers: &HeaderMap,
    authority: &dyn Authority,
) -> Result<Principal, Fault> {
    if let Some(bearer) = bearer(headers)? {
        // A bearer wins over the certificate: it is what the caller asks to be
        // known by, and a wrong one is never made good by the connection.
        return if bearer.starts_with("wp_") {
            authority.api_key(bearer).await
        } else if bearer.starts_with(LINK_PREFIX) {
            authority.link(bearer).await
        } else if bearer.split('.').count() == 3 {
            authority.sandbox_token(bearer).await
        } else {
            Err(Fault::new(
                Reason::ApiKeyInvalid,
                "the bearer is neither an api key nor a sandbox token; check how it was copied",
            ))
        };
    }
    match peer {
        Peer::Unknown => Ok(Principal::Anonymous),
        Peer::Nameless => Err(Fault::new(
            Reason::CertificateInvalid,
            "the client certificate names no service and no wolf of this fleet; join again or issue it anew",
        )),
        Peer::Known(Principal::Service(name)) if name == RELAY => {
            on_behalf(headers).map(|wolf| wolf.unwrap_or_else(|| Principal::Service(name.clone())))
        }
        Peer::Known(Principal::Service(name)) if name == FRONT => Ok(Principal::Anonymous),
        Peer::Known(principal) => Ok(principal.clone()),
    }
}

/// Whether [`identify`] finds nobody, or refuses, without asking anyone: there
/// is no bearer, and the connection proves nothing of who calls.
pub(crate) fn shows_nothing(peer: &Peer, headers: &HeaderMap) -> bool {
    let proven = match peer {
        Peer::Unknown | Peer::Nameless => false,
        Peer::Known(Principal::Service(name)) => name != FRONT,
        Peer::Known(_) => true,
    };
    !proven && !headers.contains_key(header::AUTHORIZATION)
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || {
        Fault::new(
            Reason::ApiKeyInvalid,
            "the authorization header is not one \"Bearer ...\"; send the key as it was shown",
        )
    };
    if values.next().is_some() {
        return Err(wrong());
    }
    let (scheme, token) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > 4096 {
        return Err(wrong());
    }
    Ok(Some(token))
}

/// The wolf that the relay names; only its word counts.
fn on_behalf(headers: &HeaderMap) -> Result<Option<Principal>, Fault> {
    let Some(value) = headers.get(ON_BEHALF_OF) else { return Ok(None) };
    value
        .to_str()
        .ok()
        .and_then(|name| WolfId::from_name(name).ok())
        .map(|wolf| Some(Principal::Wolf(wolf)))
        .ok_or_else(|| {
            Fault::new(
                Reason::CertificateInvalid,
                "the relayed caller is not a wolf; update the tunnel broker",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use http::HeaderValue;
    use wolfpack_types::{ApiKeyId, ExecutionId, ProjectId, Role, SandboxId, UserId};

    struct Fake;

    #[async_trait]
    impl Authority for Fake {
        async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
            if key == "wp_good" {
                Ok(Principal::User {
                    user: UserId::new(),
                    key: ApiKeyId::new(),
                    project: ProjectId::new(),
                    role: Role::Viewer,
                    platform_admin: false,
                    expires: None,
                })
            } else {
                Err(Fault::new(Reason::ApiKeyInvalid, "no"))
            }
        }
        async fn sandbox_token(&self, _token: &str) -> Result<Principal, Fault> {
            Ok(Principal::Sandbox {
                sandbox: SandboxId::new(),
                project: ProjectId::new(),
                execution: ExecutionId::new(),
            })
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v))).collect()
    }

    async fn who(
        peer: Peer,
        pairs: &[(&'static str, &'static str)],
    ) -> Result<&'static str, Reason> {
        identify(&peer, &headers(pairs), &Fake).await.map(|p| p.kind()).map_err(|f| f.reason)
    }

    fn service(name: &str) -> Peer {
        Peer::Known(Principal::Service(name.into()))
    }

    #[tokio::test]
    async fn a_bearer_wins_and_a_wrong_one_is_never_made_good() {
        let good = [("authorization", "Bearer wp_good")];
        let wrong = [("authorization", "Bearer wp_wrong")];
        assert_eq!(who(Peer::Unknown, &good).await, Ok("user"));
        assert_eq!(who(service("gateway"), &good).await, Ok("user"));
        assert_eq!(who(Peer::Nameless, &good).await, Ok("user"));
        assert_eq!(who(service("gateway"), &wrong).await, Err(Reason::ApiKeyInvalid));
        assert_eq!(
            who(service("gateway"), &[("authorization", "bearer a.b.c")]).await,
            Ok("sandbox")
        );
        // This authority takes no links.
        let link = [("authorization", "Bearer wpl_a.b.c")];
        assert_eq!(who(service("gateway"), &link).await, Err(Reason::LinkInvalid));
        for odd in ["", "Bearer", "Bearer ", "Basic wp_good", "Bearer something"] {
            assert_eq!(
                who(service("gateway"), &[("authorization", odd)]).await,
                Err(Reason::ApiKeyInvalid),
                "{odd:?}"
            );
        }
    }

    #[tokio::test]
    async fn certificates_come_second_and_nameless_ones_are_refused() {
        assert_eq!(who(Peer::Unknown, &[]).await, Ok("anonymous"));
        assert_eq!(who(service("scheduler"), &[]).await, Ok("service"));
        assert_eq!(who(service("gateway"), &[]).await, Ok("anonymous"));
        assert_eq!(who(Peer::Known(Principal::Wolf(WolfId::new())), &[]).await, Ok("wolf"));
        assert_eq!(who(Peer::Nameless, &[]).await, Err(Reason::CertificateInvalid));
    }

    #[tokio::test]
    async fn who_shows_nothing_is_nobody_and_only_who_does_is_somebody() {
        let peers = [
            Peer::Unknown,
            Peer::Nameless,
            service("gateway"),
            service("scheduler"),
            Peer::Known(Principal::Wolf(WolfId::new())),
        ];
        let bearer = [("authorization", "Bearer wp_good")];
        for peer in peers {
            let who = who(peer.clone(), &[]).await;
            let nobody = matches!(who, Ok("anonymous") | Err(_));
            assert_eq!(shows_nothing(&peer, &headers(&[])), nobody, "{peer:?}");
            assert!(!shows_nothing(&peer, &headers(&bearer)), "{peer:?}");
        }
    }

    #[tokio::test]
    async fn only_the_broker_speaks_for_wolves() {
        let forged = [("wolfpack-on-behalf-of", "wolves/abc")];
        assert_eq!(who(service("tunnel-broker"), &forged).await, Ok("wolf"));
        assert_eq!(who(service("tunnel-broker"), &[]).await, Ok("service"));
        assert_eq!(who(service("scheduler"), &forged).await, Ok("service"));
        assert_eq!(who(service("gateway"), &forged).await, Ok("anonymous"));
        assert_eq!(who(Peer::Unknown, &forged).await, Ok("anonymous"));
        let user = [("wolfpack-on-behalf-of", "wolves/abc"), ("authorization", "Bearer wp_good")];
        assert_eq!(who(service("tunnel-broker"), &user).await, Ok("user"));
        let odd = [("wolfpack-on-behalf-of", "users/abc")];
        assert_eq!(who(service("tunnel-broker"), &odd).await, Err(Reason::CertificateInvalid));
    }
}

//! Joining and renewing: the calls to the registry.

use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::{JoinWolfRequest, RenewWolfCertificateRequest};
use wolfpack_rpc::client::{TLS, UNKNOWN_ISSUER};
use wolfpack_rpc::{ClientTls, RpcChannel, from_status};
use wolfpack_runtime::{BoxError, clock};
use wolfpack_tunnel::protocol::Backoff;
use wolfpack_types::{Fault, Reason, WolfId};

use super::{IdentityStore, Issued, JoinToken};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(20);
/// How often to look whether it is time to renew, and to try again.
const LOOK: Duration = Duration::from_secs(600);

/// Trades the join token for an identity and keeps it. Tries again while the
/// gateway does not answer, until `stop`.
///
/// # Errors
/// When the server is of another CA than the token's, the token is refused, the identity cannot be kept, or it was stopped.
pub async fn join(
    store: &IdentityStore,
    server: &str,
    token: &SecretString,
    display_name: &str,
    stop: &CancellationToken,
) -> Result<(), BoxError> {
    let token = JoinToken::parse(token)?;
    let tls = ClientTls::pinned_ca(token.ca_sha256);
    let gateway = RpcChannel::to_gateway(server, Some(&tls), None)?.with_deadline(CALL);
    let request = blocking(store, IdentityStore::certificate_request).await?;
    let mut backoff = Backoff::default();
    let answer = loop {
        let asked = JoinWolfRequest {
            token: token.token.expose_secret().to_owned(),
            certificate_request: request.clone().into(),
            display_name: display_name.to_owned(),
        };
        let fault = match IdentityServiceClient::new(gateway.clone()).join_wolf(asked).await {
            Ok(answer) => break answer.into_inner(),
            Err(status) => from_status(&status),
        };
        // With the root pinned there is one way to an unknown issuer.
        if fault.metadata.get(TLS).is_some_and(|what| what == UNKNOWN_ISSUER) {
            return Err(format!(
                "{server} is not of the fleet that the join token is for: its certificate does \
                 not lead to the CA in the token; set server to that fleet's gateway, or make \
                 the token there"
            )
            .into());
        }
        if !worth_another_try(&fault) {
            return Err(format!("the wolf could not join at {server}: {fault}").into());
        }
        let pause = backoff.next_wait(rand::random(), None);
        tracing::warn!(%fault, ?pause, "the gateway does not answer; the wolf tries to join again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Err("stopped before the wolf had joined".into()),
        }
    };
    let wolf = WolfId::from_name(&answer.wolf)?;
    let issued =
        Issued { certificate_chain: answer.certificate_chain, trust_roots: answer.trust_roots };
    blocking(store, move |store| store.joined(&wolf, &answer.agent_endpoint, &issued)).await?;
    Ok(())
}

/// Whether the same call may work later: a token that was refused never does.
fn worth_another_try(fault: &Fault) -> bool {
    fault.reason.retryable()
        || matches!(fault.reason, Reason::DependencyUnavailable | Reason::DeadlineExceeded)
}

/// Renews the certificate whenever two thirds of its life are over, until
/// `stop`; a renewal that fails is tried again long before the end.
pub async fn keep_renewed(store: &IdentityStore, broker: &RpcChannel, stop: &CancellationToken) {
    loop {
        let pause = match store.current() {
            Some(own) => due_in(own.renew_time(), clock::now()),
            None => LOOK,
        };
        tokio::select! {
            () = tokio::time::sleep(pause.min(LOOK)) => {}
            () = stop.cancelled() => return,
        }
        let Some(own) = store.current() else { continue };
        if !due_in(own.renew_time(), clock::now()).is_zero() {
            continue;
        }
        match renew(store, broker).await {
            Ok(()) => tracing::info!("renewed the wolf's certificate"),
            Err(error) => {
                tracing::warn!(error, "the certificate could not be renewed; it is tried again");
                // A random part of a tenth of what is left, within bounds.
                let left = own.valid.1.duration_since(clock::now()).unwrap_or_default();
                let pause = (left / 10).clamp(Duration::from_secs(5), LOOK);
                let pause = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

fn due_in(when: SystemTime, now: SystemTime) -> Duration {
    when.duration_since(now).unwrap_or(Duration::ZERO)
}

async fn renew(store: &IdentityStore, broker: &RpcChannel) -> Result<(), BoxError> {
    let certificate_request = blocking(store, IdentityStore::certificate_request).await?.into();
    let asked = RenewWolfCertificateRequest { certificate_request };
    let channel = broker.with_deadline(CALL);
    let answer = IdentityServiceClient::new(channel).renew_wolf_certificate(asked).await;
    let answer = answer.map_err(|status| from_status(&status))?.into_inner();
    let issued =
        Issued { certificate_chain: answer.certificate_chain, trust_roots: answer.trust_roots };
    blocking(store, move |store| store.renewed(&issued)).await?;
    Ok(())
}

async fn blocking<T: Send + 'static>(
    store: &IdentityStore,
    work: impl FnOnce(&IdentityStore) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || work(&store)).await.map_err(std::io::Error::other)?
}

//! How wolves get in: join tokens, JoinWolf, renewal.

use std::time::Duration;

use wolfpack_proto::registry::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, JoinWolfRequest, JoinWolfResponse,
    RenewWolfCertificateRequest, RenewWolfCertificateResponse,
};
use wolfpack_rpc::request::Caller;
use wolfpack_types::{Fault, ProjectId, Reason, WolfId};

use super::Registry;
use super::api_keys::span;
use super::wolves::wolf_of;
use crate::ca::SignedCertificate;
use crate::domain::access::Actor;
use crate::domain::join_token::JoinToken;
use crate::domain::time::Micros;
use crate::store::{NewWolf, invalid_join_token};

const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(3600);

impl Registry {
    pub(super) async fn create_join_token(
        &self,
        caller: &Caller,
        message: CreateJoinTokenRequest,
    ) -> Result<CreateJoinTokenResponse, Fault> {
        let actor = Actor::of(&caller.principal)?;
        let project = if message.project.is_empty() {
            actor.manages_platform()?;
            None
        } else {
            let project = ProjectId::from_name(&message.project)?;
            actor.manages(&project)?;
            Some(project)
        };
        let ttl = message.ttl.map(span).transpose()?.unwrap_or(JOIN_TOKEN_LIFE);
        let token = JoinToken::generate(self.ca.root_sha256());
        let expire_time =
            self.database.create_join_token(&token, project, &actor.user, ttl).await?;
        tracing::info!(by = %actor.user, token = %token.id, "join token created");
        Ok(CreateJoinTokenResponse {
            token: token.reveal(),
            expire_time: Some(expire_time.to_proto()),
        })
    }

    pub(super) async fn join_wolf(
        &self,
        _: &Caller,
        message: JoinWolfRequest,
    ) -> Result<JoinWolfResponse, Fault> {
        let token = JoinToken::parse(&message.token).map_err(|_| invalid_join_token())?;
        // A token for another control plane is not ours, whatever its secret.
        if token.ca_sha256 != self.ca.root_sha256() {
            return Err(invalid_join_token());
        }
        let id = WolfId::new();
        // Before anything is signed for whoever asks.
        self.database.check_join_token(&token).await?;
        // Before the token is used up, as the request may be refused.
        let signed = self.sign(&message.certificate_request, &id)?;
        let new = NewWolf { id: id.clone(), display_name: message.display_name };
        self.database.redeem_join_token(&token, new, self.timing).await?;
        self.wolves.wake();
        tracing::info!(token = %token.id, wolf = %id, "wolf joined");
        Ok(JoinWolfResponse {
            wolf: id.name(),
            certificate_chain: signed.certificate_pem,
            trust_roots: self.ca.root_pem().to_owned(),
            agent_endpoint: self.agent_endpoint.load().to_string(),
            expire_time: Some(Micros::from(signed.not_after).to_proto()),
        })
    }

    pub(super) async fn renew_wolf_certificate(
        &self,
        caller: &Caller,
        message: RenewWolfCertificateRequest,
    ) -> Result<RenewWolfCertificateResponse, Fault> {
        let wolf = wolf_of(caller)?;
        self.database.wolf(&wolf).await?;
        let signed = self.sign(&message.certificate_request, &wolf)?;
        tracing::info!(%wolf, "wolf certificate renewed");
        Ok(RenewWolfCertificateResponse {
            certificate_chain: signed.certificate_pem,
            trust_roots: self.ca.root_pem().to_owned(),
            expire_time: Some(Micros::from(signed.not_after).to_proto()),
        })
    }

    fn sign(&self, request: &[u8], wolf: &WolfId) -> Result<SignedCertificate, Fault> {
        self.ca.sign_wolf_csr(request, wolf).map_err(Fault::internal)?.map_err(|refused| {
            Fault::new(Reason::CertificateRequestInvalid, refused.to_string())
                .violates("certificate_request", refused.to_string())
        })
    }
}

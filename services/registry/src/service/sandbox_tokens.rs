//! Sandbox tokens, links and revocations.

use std::sync::Arc;
use std::time::Duration;

use wolfpack_proto::registry::v1::{
    ChangedRole, MintLinkRequest, MintLinkResponse, MintSandboxTokenRequest,
    MintSandboxTokenResponse, RefreshSandboxTokenRequest, RefreshSandboxTokenResponse,
    RevokeSandboxTokensRequest, RevokeSandboxTokensResponse, RevokedSandbox,
    WatchRevocationsResponse, watch_revocations_response,
};
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::request::Caller;
use wolfpack_types::{
    ApiKeyId, ExecutionId, Fault, Principal, ProjectId, Reason, SandboxId, UserId,
};

use super::Registry;
use crate::domain::access::{role_of_word, role_to_proto};
use crate::store::RevocationRow;
use crate::watch::{Event, WatchStream};

impl Registry {
    pub(super) async fn mint_sandbox_token(
        &self,
        _: &Caller,
        message: MintSandboxTokenRequest,
    ) -> Result<MintSandboxTokenResponse, Fault> {
        let sandbox = SandboxId::from_name(&message.sandbox)?;
        let project = ProjectId::from_name(&message.project)?;
        let execution = ExecutionId::parse(&message.execution_id)?;
        let signed = self.tokens.sign(&sandbox, &project, &execution).await?;
        Ok(MintSandboxTokenResponse { token: signed.token, expire_time: Some(signed.expire_time) })
    }

    pub(super) async fn mint_link(
        &self,
        _: &Caller,
        message: MintLinkRequest,
    ) -> Result<MintLinkResponse, Fault> {
        let sandbox = SandboxId::from_name(&message.sandbox)?;
        let project = ProjectId::from_name(&message.project)?;
        let creator = UserId::from_name(&message.creator)?;
        let odd = || Fault::new(Reason::RequestInvalid, "the port or the life of the link is none");
        let port = u16::try_from(message.port).map_err(|_| odd())?;
        let life = message.life.and_then(|life| Duration::try_from(life).ok()).ok_or_else(odd)?;
        let signed = self.tokens.sign_link(&sandbox, port, &project, &creator, life).await?;
        tracing::info!(audit = "link.minted", %sandbox, port, %creator, %project, "a link was made");
        Ok(MintLinkResponse { token: signed.token, expire_time: Some(signed.expire_time) })
    }

    pub(super) async fn refresh_sandbox_token(
        &self,
        caller: &Caller,
        _: RefreshSandboxTokenRequest,
    ) -> Result<RefreshSandboxTokenResponse, Fault> {
        let Principal::Sandbox { sandbox, project, execution } = &caller.principal else {
            return Err(Fault::new(
                Reason::CallerForbidden,
                "only a sandbox may do this; call with the token in /run/wolfpack",
            ));
        };
        let signed = self.tokens.sign(sandbox, project, execution).await?;
        Ok(RefreshSandboxTokenResponse {
            token: signed.token,
            expire_time: Some(signed.expire_time),
        })
    }

    pub(super) async fn revoke_sandbox_tokens(
        &self,
        _: &Caller,
        message: RevokeSandboxTokensRequest,
    ) -> Result<RevokeSandboxTokensResponse, Fault> {
        let sandbox = SandboxId::from_name(&message.sandbox)?;
        let execution = match message.execution_id.as_str() {
            "" => None,
            id => Some(ExecutionId::parse(id)?),
        };
        self.database.revoke_sandbox(sandbox.clone(), execution).await?;
        tracing::info!(%sandbox, execution = message.execution_id, "sandbox tokens revoked");
        self.revocations_seen().await?;
        Ok(RevokeSandboxTokensResponse {})
    }

    pub(super) async fn watch_revocations(
        &self,
    ) -> Result<WatchStream<WatchRevocationsResponse>, Fault> {
        let feed = Arc::clone(&self.revocations);
        WatchStream::begin(feed, 0, |event| Ok(Some(revocation(event)))).await
    }
}

fn revocation(event: Event<RevocationRow>) -> WatchRevocationsResponse {
    use watch_revocations_response::Event as Wire;
    match event {
        Event::Bookmark { revision, snapshot_complete } => WatchRevocationsResponse {
            revision,
            event: Some(Wire::Bookmark(WatchBookmark { snapshot_complete })),
        },
        Event::Change(change) => {
            let row = &change.row;
            let event = match (&row.api_key, &row.sandbox, &row.changed_key) {
                (Some(key), ..) => Some(Wire::ApiKey(format!("{}/{key}", ApiKeyId::COLLECTION))),
                (None, Some(sandbox), _) => Some(Wire::Sandbox(RevokedSandbox {
                    sandbox: format!("{}/{sandbox}", SandboxId::COLLECTION),
                    execution_id: row.execution.clone(),
                })),
                (None, None, Some(key)) => Some(Wire::Role(ChangedRole {
                    api_key: format!("{}/{key}", ApiKeyId::COLLECTION),
                    role: role_to_proto(role_of_word(row.role.as_deref().unwrap_or_default()))
                        .into(),
                })),
                (None, None, None) => None,
            };
            WatchRevocationsResponse { revision: change.revision, event }
        }
    }
}

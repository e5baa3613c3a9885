//! `IdentityService`: each rpc checks its message and is handed on.

use tonic::{Request, Response, Status};
use wolfpack_proto::registry::v1::identity_service_server::IdentityService;
use wolfpack_proto::registry::v1::{
    CreateApiKeyRequest, CreateApiKeyResponse, CreateJoinTokenRequest, CreateJoinTokenResponse,
    CreateProjectRequest, CreateProjectResponse, CreateUserRequest, CreateUserResponse,
    GetSigningKeysRequest, GetSigningKeysResponse, IntrospectRequest, IntrospectResponse,
    JoinWolfRequest, JoinWolfResponse, ListApiKeysRequest, ListApiKeysResponse,
    ListProjectsRequest, ListProjectsResponse, MintLinkRequest, MintLinkResponse,
    MintSandboxTokenRequest, MintSandboxTokenResponse, RefreshSandboxTokenRequest,
    RefreshSandboxTokenResponse, RenewWolfCertificateRequest, RenewWolfCertificateResponse,
    RevokeApiKeyRequest, RevokeApiKeyResponse, RevokeSandboxTokensRequest,
    RevokeSandboxTokensResponse, SetProjectMemberRequest, SetProjectMemberResponse,
    WatchRevocationsRequest, WatchRevocationsResponse, WhoAmIRequest, WhoAmIResponse,
};
use wolfpack_rpc::error::to_status;
use wolfpack_rpc::request::{caller, checked};

use super::IdentityHandler;
use crate::watch::WatchStream;

/// Checks a message, if it has anything to check, and hands it on.
macro_rules! hand_on {
    ($self:ident.$method:ident($request:ident), nothing to check) => {{
        let caller = caller(&$request);
        $self.0.$method(&caller, $request.into_inner()).await.map(Response::new).map_err(to_status)
    }};
    ($self:ident.$method:ident($request:ident)) => {{
        let (caller, message) = checked($request)?;
        $self.0.$method(&caller, message).await.map(Response::new).map_err(to_status)
    }};
}

#[tonic::async_trait]
impl IdentityService for IdentityHandler {
    type WatchRevocationsStream = WatchStream<WatchRevocationsResponse>;

    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        hand_on!(self.who_am_i(request), nothing to check)
    }

    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        hand_on!(self.create_user(request))
    }

    async fn create_project(
        &self,
        request: Request<CreateProjectRequest>,
    ) -> Result<Response<CreateProjectResponse>, Status> {
        hand_on!(self.create_project(request))
    }

    async fn list_projects(
        &self,
        request: Request<ListProjectsRequest>,
    ) -> Result<Response<ListProjectsResponse>, Status> {
        hand_on!(self.list_projects(request))
    }

    async fn set_project_member(
        &self,
        request: Request<SetProjectMemberRequest>,
    ) -> Result<Response<SetProjectMemberResponse>, Status> {
        hand_on!(self.set_project_member(request))
    }

    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        hand_on!(self.create_api_key(request))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        hand_on!(self.list_api_keys(request))
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        hand_on!(self.revoke_api_key(request))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        hand_on!(self.create_join_token(request))
    }

    async fn join_wolf(
        &self,
        request: Request<JoinWolfRequest>,
    ) -> Result<Response<JoinWolfResponse>, Status> {
        hand_on!(self.join_wolf(request))
    }

    async fn renew_wolf_certificate(
        &self,
        request: Request<RenewWolfCertificateRequest>,
    ) -> Result<Response<RenewWolfCertificateResponse>, Status> {
        hand_on!(self.renew_wolf_certificate(request))
    }

    async fn mint_sandbox_token(
        &self,
        request: Request<MintSandboxTokenRequest>,
    ) -> Result<Response<MintSandboxTokenResponse>, Status> {
        hand_on!(self.mint_sandbox_token(request))
    }

    async fn refresh_sandbox_token(
        &self,
        request: Request<RefreshSandboxTokenRequest>,
    ) -> Result<Response<RefreshSandboxTokenResponse>, Status> {
        hand_on!(self.refresh_sandbox_token(request), nothing to check)
    }

    async fn mint_link(
        &self,
        request: Request<MintLinkRequest>,
    ) -> Result<Response<MintLinkResponse>, Status> {
        hand_on!(self.mint_link(request))
    }

    async fn revoke_sandbox_tokens(
        &self,
        request: Request<RevokeSandboxTokensRequest>,
    ) -> Result<Response<RevokeSandboxTokensResponse>, Status> {
        hand_on!(self.revoke_sandbox_tokens(request))
    }

    async fn get_signing_keys(
        &self,
        _: Request<GetSigningKeysRequest>,
    ) -> Result<Response<GetSigningKeysResponse>, Status> {
        Ok(Response::new(GetSigningKeysResponse { keys: self.0.tokens.public_keys() }))
    }

    async fn watch_revocations(
        &self,
        _: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        self.0.watch_revocations().await.map(Response::new).map_err(to_status)
    }

    async fn introspect(
        &self,
        request: Request<IntrospectRequest>,
    ) -> Result<Response<IntrospectResponse>, Status> {
        hand_on!(self.introspect(request))
    }
}

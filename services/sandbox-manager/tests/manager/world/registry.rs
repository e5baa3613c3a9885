//! Wolves, keys and tokens.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::registry::v1::identity_service_server::IdentityService;
use wolfpack_proto::registry::v1::watch_wolves_response::Event;
use wolfpack_proto::registry::v1::wolf_service_server::WolfService;
use wolfpack_proto::registry::v1::*;
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_types::{Reason, WolfId};

use super::{Effect, World, fault, not_served};

#[tonic::async_trait]
impl WolfService for World {
    type HeartbeatStream = BoxStream<'static, Result<HeartbeatResponse, Status>>;
    type WatchWolvesStream = BoxStream<'static, Result<WatchWolvesResponse, Status>>;

    async fn register_wolf(
        &self,
        _: Request<RegisterWolfRequest>,
    ) -> Result<Response<RegisterWolfResponse>, Status> {
        Err(not_served())
    }

    async fn heartbeat(
        &self,
        _: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        Err(not_served())
    }

    async fn get_wolf(
        &self,
        request: Request<GetWolfRequest>,
    ) -> Result<Response<GetWolfResponse>, Status> {
        let id = WolfId::from_name(&request.into_inner().name).unwrap();
        let wolf = self.with(|state| state.wolves.get(&id).cloned());
        let wolf = wolf.ok_or_else(|| fault(Reason::WolfNotFound, "no such wolf"))?;
        Ok(Response::new(GetWolfResponse { wolf: Some(wolf) }))
    }

    async fn list_wolves(
        &self,
        _: Request<ListWolvesRequest>,
    ) -> Result<Response<ListWolvesResponse>, Status> {
        Err(not_served())
    }

    async fn watch_wolves(
        &self,
        _: Request<WatchWolvesRequest>,
    ) -> Result<Response<Self::WatchWolvesStream>, Status> {
        let (wolves, revision, events) = self.with(|state| {
            let wolves: Vec<Wolf> = state.wolves.values().cloned().collect();
            (wolves, state.revision, self.inner.wolf_events.subscribe())
        });
        let response = move |revision, event| {
            Ok(WatchWolvesResponse { revision, event: Some(event), send_time: None })
        };
        let snapshot: Vec<_> = wolves
            .into_iter()
            .map(Event::Upserted)
            .chain([Event::Bookmark(WatchBookmark { snapshot_complete: true })])
            .map(move |event| response(revision, event))
            .collect();
        let live = stream::unfold(events, move |mut events| async move {
            let (revision, event) = events.recv().await.ok()?;
            let event = match event {
                Ok(wolf) => Event::Upserted(wolf),
                Err(name) => Event::Deleted(name),
            };
            Some((response(revision, event), events))
        });
        Ok(Response::new(stream::iter(snapshot).chain(live).boxed()))
    }
}

macro_rules! not_served {
    ($($name:ident: $request:ident -> $response:ident;)*) => {$(
        // As async_trait would write it: it does not look into macros.
        fn $name<'life, 'future>(
            &'life self,
            _: Request<$request>,
        ) -> futures::future::BoxFuture<'future, Result<Response<$response>, Status>>
        where
            'life: 'future,
            Self: 'future,
        {
            Box::pin(async { Err(not_served()) })
        }
    )*};
}

#[tonic::async_trait]
impl IdentityService for World {
    type WatchRevocationsStream = BoxStream<'static, Result<WatchRevocationsResponse, Status>>;

    /// Keys are `wp_{project}_{role}`; `platform` is an admin of all.
    async fn introspect(
        &self,
        request: Request<IntrospectRequest>,
    ) -> Result<Response<IntrospectResponse>, Status> {
        let key = request.into_inner().key;
        let mut parts = key.split('_').skip(1);
        let (Some(project), Some(role)) = (parts.next(), parts.next()) else {
            return Err(fault(Reason::ApiKeyInvalid, "no such key"));
        };
        let role = match role {
            "viewer" => Role::Viewer,
            "developer" => Role::Developer,
            "admin" | "platform" => Role::Admin,
            _ => return Err(fault(Reason::ApiKeyInvalid, "no such key")),
        };
        Ok(Response::new(IntrospectResponse {
            api_key: format!("apiKeys/{project}-{}", role.as_str_name().len()),
            user: "users/ada".into(),
            project: format!("projects/{project}"),
            role: role.into(),
            platform_admin: key.ends_with("_platform"),
            ..IntrospectResponse::default()
        }))
    }

    async fn watch_revocations(
        &self,
        _: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let mark =
            watch_revocations_response::Event::Bookmark(WatchBookmark { snapshot_complete: true });
        let first = WatchRevocationsResponse { revision: 0, event: Some(mark) };
        Ok(Response::new(stream::iter([Ok(first)]).chain(stream::pending()).boxed()))
    }

    async fn mint_sandbox_token(
        &self,
        request: Request<MintSandboxTokenRequest>,
    ) -> Result<Response<MintSandboxTokenResponse>, Status> {
        let request = request.into_inner();
        let token = format!("token of {}", request.execution_id);
        self.with(|state| state.minted.insert((request.sandbox, request.execution_id)));
        self.after(Effect::Mint).await;
        Ok(Response::new(MintSandboxTokenResponse { token, expire_time: None }))
    }

    async fn mint_link(
        &self,
        request: Request<MintLinkRequest>,
    ) -> Result<Response<MintLinkResponse>, Status> {
        let request = request.into_inner();
        let life = request.life.unwrap_or_default().seconds;
        let MintLinkRequest { sandbox, port, project, creator, .. } = request;
        let token = format!("wpl_ {sandbox} {port} {project} {creator} {life}");
        Ok(Response::new(MintLinkResponse { token, expire_time: None }))
    }

    async fn revoke_sandbox_tokens(
        &self,
        request: Request<RevokeSandboxTokensRequest>,
    ) -> Result<Response<RevokeSandboxTokensResponse>, Status> {
        let request = request.into_inner();
        self.with(|state| state.revoked.insert((request.sandbox, request.execution_id)));
        self.after(Effect::Revoke).await;
        Ok(Response::new(RevokeSandboxTokensResponse {}))
    }

    not_served! {
        who_am_i: WhoAmIRequest -> WhoAmIResponse;
        create_user: CreateUserRequest -> CreateUserResponse;
        create_project: CreateProjectRequest -> CreateProjectResponse;
        list_projects: ListProjectsRequest -> ListProjectsResponse;
        set_project_member: SetProjectMemberRequest -> SetProjectMemberResponse;
        create_api_key: CreateApiKeyRequest -> CreateApiKeyResponse;
        list_api_keys: ListApiKeysRequest -> ListApiKeysResponse;
        revoke_api_key: RevokeApiKeyRequest -> RevokeApiKeyResponse;
        create_join_token: CreateJoinTokenRequest -> CreateJoinTokenResponse;
        join_wolf: JoinWolfRequest -> JoinWolfResponse;
        renew_wolf_certificate: RenewWolfCertificateRequest -> RenewWolfCertificateResponse;
        refresh_sandbox_token: RefreshSandboxTokenRequest -> RefreshSandboxTokenResponse;
        get_signing_keys: GetSigningKeysRequest -> GetSigningKeysResponse;
    }
}

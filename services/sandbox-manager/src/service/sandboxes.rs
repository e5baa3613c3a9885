//! `SandboxService`.

use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::BoxStream;
use prost::Message as _;
use tonic::{Request, Response, Status};
use wolfpack_proto::sandbox::v1::sandbox_service_server::SandboxService;
use wolfpack_proto::sandbox::v1::{
    CreateSandboxRequest, CreateSandboxResponse, DeleteSandboxRequest, DeleteSandboxResponse,
    GetSandboxRequest, GetSandboxResponse, ListSandboxesRequest, ListSandboxesResponse,
    WatchSandboxesRequest, WatchSandboxesResponse,
};
use wolfpack_rpc::{Caller, checked, to_status};
use wolfpack_runtime::trace_context;
use wolfpack_types::{DockerMode, Role, SandboxId, page};

use super::{Api, answer, id_of, refuse, role_inside};
use crate::domain::{Record, accept, docker_of};
use crate::store::{Asked, ListQuery, Owner, Sandbox};

#[tonic::async_trait]
impl SandboxService for Api {
    type WatchSandboxesStream = BoxStream<'static, Result<WatchSandboxesResponse, Status>>;

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Result<Response<CreateSandboxResponse>, Status> {
        let (caller, mut message) = checked(request)?;
        let spec = message.sandbox.as_ref().and_then(|it| it.spec.as_ref());
        caller.require(role_inside(spec.map_or(DockerMode::None, docker_of)))?;
        let request_id = std::mem::take(&mut message.request_id);
        // All of the message but the id that names it.
        let body_hash = *blake3::hash(&message.encode_to_vec()).as_bytes();
        let fresh = self.fresh(&caller, message)?;
        let created =
            self.parts.sandboxes.create(&fresh, &request_id, body_hash).await.map_err(refuse)?;
        if created.fresh {
            self.parts.queue.wake(&created.sandbox.id);
            self.parts.feed.poke();
        }
        Ok(Response::new(CreateSandboxResponse {
            sandbox: Some(answer::sandbox(&created.sandbox)),
        }))
    }

    async fn get_sandbox(
        &self,
        request: Request<GetSandboxRequest>,
    ) -> Result<Response<GetSandboxResponse>, Status> {
        let (caller, message) = checked(request)?;
        let sandbox = self.sandbox(&caller, &message.name).await?;
        Ok(Response::new(GetSandboxResponse { sandbox: Some(answer::sandbox(&sandbox)) }))
    }

    async fn list_sandboxes(
        &self,
        request: Request<ListSandboxesRequest>,
    ) -> Result<Response<ListSandboxesResponse>, Status> {
        let (caller, message) = checked(request)?;
        let project = caller.project()?;
        let scope = scope(project.as_str(), &message);
        let query = ListQuery {
            project: project.clone(),
            before: page::decode(&message.page_token, &scope).map_err(to_status)?,
            size: page::page_size(message.page_size),
            labels: message.label_selector,
            show_deleted: message.show_deleted,
            display_name: message.display_name,
        };
        let listed = self.parts.sandboxes.list(&query).await.map_err(refuse)?;
        let next_page_token = match listed.sandboxes.last() {
            Some(last) if listed.more => page::encode(last.id.as_str(), &scope),
            _ => String::new(),
        };
        let sandboxes = listed.sandboxes.iter().map(answer::sandbox).collect();
        Ok(Response::new(ListSandboxesResponse { sandboxes, next_page_token }))
    }

    async fn watch_sandboxes(
        &self,
        request: Request<WatchSandboxesRequest>,
    ) -> Result<Response<Self::WatchSandboxesStream>, Status> {
        let (caller, message) = checked(request)?;
        let project = caller.project()?.clone();
        let only = if message.name.is_empty() {
            None
        } else {
            Some(self.sandbox(&caller, &message.name).await?.id)
        };
        let stream = self.watch(project, only, message.resume_revision).await.map_err(to_status)?;
        Ok(Response::new(stream))
    }

    async fn delete_sandbox(
        &self,
        request: Request<DeleteSandboxRequest>,
    ) -> Result<Response<DeleteSandboxResponse>, Status> {
        let (caller, message) = checked(request)?;
        caller.require(Role::Developer)?;
        let project = caller.project()?;
        let id = id_of(&message.name)?;
        let traceparent = trace_context::current_traceparent();
        let sandbox = self
            .parts
            .sandboxes
            .mark_deleting(project, &id, &message.etag, traceparent)
            .await
            .map_err(refuse)?;
        self.parts.queue.wake(&id);
        self.parts.feed.poke();
        Ok(Response::new(DeleteSandboxResponse { sandbox: Some(answer::sandbox(&sandbox)) }))
    }
}

impl Api {
    /// The row of a sandbox that was just asked for, owned by this replica.
    fn fresh(&self, caller: &Caller, message: CreateSandboxRequest) -> Result<Sandbox, Status> {
        let asked = message.sandbox.unwrap_or_default();
        let spec =
            accept(asked.spec.unwrap_or_default(), &self.parts.defaults).map_err(to_status)?;
        let now: DateTime<Utc> = self.parts.sandboxes.now();
        let lease = TimeDelta::from_std(self.parts.lease).unwrap_or_default();
        Ok(Sandbox {
            id: SandboxId::new(),
            project: caller.project()?.clone(),
            creator: caller.principal.to_string(),
            asked: Asked { display_name: asked.display_name, labels: asked.labels, spec },
            traceparent: trace_context::current_traceparent(),
            record: Record::new(now),
            goods: None,
            created_at: now,
            updated_at: now,
            version: 1,
            revision: 0,
            owner: Owner { holder: Some(self.parts.holder.clone()), epoch: 1, until: now + lease },
        })
    }
}

/// What a page token belongs to: the caller's project and the filters.
fn scope(project: &str, message: &ListSandboxesRequest) -> String {
    let filters =
        ListSandboxesRequest { page_size: 0, page_token: String::new(), ..message.clone() };
    let hash = blake3::hash(&filters.encode_to_vec());
    format!("ListSandboxes/{project}/{}", hash.to_hex())
}

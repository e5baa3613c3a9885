//! What the sandbox-manager calls through the tunnel: `WolfRuntimeService`,
//! and the way to a sandbox's agent.

mod agent_dialer;
mod containers;
mod create;
mod images;
mod logs;
mod map;
mod watch;

use futures::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status};
use wolfpack_proto::agent::v1::wolf_runtime_service_server::WolfRuntimeService;
use wolfpack_proto::agent::v1::{
    CreateSandboxRequest, CreateSandboxResponse, ListSandboxesRequest, ListSandboxesResponse,
    RemoveSandboxRequest, RemoveSandboxResponse, StreamLogsRequest, StreamLogsResponse,
    WatchSandboxesRequest, WatchSandboxesResponse,
};
use wolfpack_rpc::{Allow, Peer, PolicyRow, RpcKind, checked, to_status};
use wolfpack_tunnel::TunnelPeer;
use wolfpack_types::{ExecutionId, Principal, SandboxId};

use crate::lifecycle::Lifecycle;

pub(crate) use agent_dialer::AgentDialer;
pub(crate) use containers::SiblingRpcs;
pub(crate) use images::{ImageRpcs, LOAD_MESSAGE};

/// The one service that may call a wolf.
const MANAGER: &str = "sandbox-manager";
const ALLOW: Allow = Allow { services: &[MANAGER], ..Allow::NOBODY };

/// Who may call what: the sandbox-manager, and nobody else.
pub const POLICY: &[PolicyRow] = &[
    row("/wolfpack.agent.v1.WolfRuntimeService/CreateSandbox", RpcKind::Stream),
    // A removal waits for a create that cannot be interrupted; it has
    // deadlines of its own.
    row("/wolfpack.agent.v1.WolfRuntimeService/RemoveSandbox", RpcKind::Stream),
    row("/wolfpack.agent.v1.WolfRuntimeService/ListSandboxes", RpcKind::Unary),
    row("/wolfpack.agent.v1.WolfRuntimeService/WatchSandboxes", RpcKind::Stream),
    row("/wolfpack.agent.v1.WolfRuntimeService/StreamLogs", RpcKind::Stream),
    row("/wolfpack.agent.v1.ContainerService/ListContainers", RpcKind::Unary),
    row("/wolfpack.agent.v1.WolfDoctorService/RunChecks", RpcKind::Stream),
    row("/wolfpack.agent.v1.WolfDoctorService/Echo", RpcKind::Unary),
    row("/wolfpack.agent.v1.WolfImageService/ListImages", RpcKind::Unary),
    row("/wolfpack.agent.v1.WolfImageService/LoadImage", RpcKind::Stream),
    // Layers of a large image take their time; the engine's deadline bounds it.
    row("/wolfpack.agent.v1.WolfImageService/RemoveImage", RpcKind::Stream),
];

const fn row(method: &'static str, kind: RpcKind) -> PolicyRow {
    PolicyRow { method, allow: ALLOW, kind }
}

/// Who the broker says is at the other end of a tunnelled connection.
pub(crate) fn peer(peer: &TunnelPeer) -> Peer {
    match peer.caller.strip_prefix("services/") {
        Some(name) => Peer::authenticated(Principal::Service(name.to_owned())),
        None => Peer::unknown(None),
    }
}

/// The service; thin: validate, map, call the lifecycle.
#[derive(Clone)]
pub(crate) struct Runtime {
    lifecycle: Lifecycle,
}

impl Runtime {
    pub(crate) fn new(lifecycle: Lifecycle) -> Self {
        Self { lifecycle }
    }
}

type Streamed<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl WolfRuntimeService for Runtime {
    type CreateSandboxStream = Streamed<CreateSandboxResponse>;
    type WatchSandboxesStream = Streamed<WatchSandboxesResponse>;
    type StreamLogsStream = Streamed<StreamLogsResponse>;

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Result<Response<Self::CreateSandboxStream>, Status> {
        let (_, request) = checked(request)?;
        let request = map::create_request(request).map_err(to_status)?;
        let progress = self.lifecycle.create(request).await.map_err(to_status)?;
        Ok(Response::new(create::steps(progress).boxed()))
    }

    async fn remove_sandbox(
        &self,
        request: Request<RemoveSandboxRequest>,
    ) -> Result<Response<RemoveSandboxResponse>, Status> {
        let (_, request) = checked(request)?;
        let sandbox =
            SandboxId::from_name(&request.sandbox).map_err(|odd| to_status(odd.into()))?;
        let execution = match request.execution_id.as_str() {
            "" => None,
            id => Some(ExecutionId::parse(id).map_err(|odd| to_status(odd.into()))?),
        };
        let removed = self.lifecycle.remove(sandbox, execution, request.owner_epoch).await;
        removed.map_err(to_status)?;
        Ok(Response::new(RemoveSandboxResponse {}))
    }

    async fn list_sandboxes(
        &self,
        _: Request<ListSandboxesRequest>,
    ) -> Result<Response<ListSandboxesResponse>, Status> {
        let observer = self.lifecycle.observer();
        let looked = observer.resync().await;
        looked.map_err(|error| to_status(error.into_fault("list containers")))?;
        let mut found = observer.snapshot();
        found.sort_by(|a, b| a.identity.sandbox.cmp(&b.identity.sandbox));
        let containers = found.iter().map(map::status).collect();
        Ok(Response::new(ListSandboxesResponse { containers }))
    }

    async fn watch_sandboxes(
        &self,
        _: Request<WatchSandboxesRequest>,
    ) -> Result<Response<Self::WatchSandboxesStream>, Status> {
        let observer = self.lifecycle.observer();
        let looked = observer.resync().await;
        looked.map_err(|error| to_status(error.into_fault("list containers")))?;
        let (snapshot, changes) = observer.watch();
        Ok(Response::new(watch::events(&snapshot, changes).boxed()))
    }

    async fn stream_logs(
        &self,
        request: Request<StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let (_, request) = checked(request)?;
        let sandbox =
            SandboxId::from_name(&request.sandbox).map_err(|odd| to_status(odd.into()))?;
        let tail = Some(request.tail_lines).filter(|lines| *lines > 0);
        let logs = logs::open(&self.lifecycle, &sandbox, request.follow, tail).await;
        Ok(Response::new(logs.map_err(to_status)?.boxed()))
    }
}

/// Nobody brings a key or a token to a wolf: callers are known by the tunnel.
pub(crate) struct NoBearers;

#[tonic::async_trait]
impl wolfpack_rpc::Authority for NoBearers {
    async fn api_key(&self, _: &str) -> Result<Principal, wolfpack_types::Fault> {
        Err(refused(wolfpack_types::Reason::ApiKeyInvalid))
    }

    async fn sandbox_token(&self, _: &str) -> Result<Principal, wolfpack_types::Fault> {
        Err(refused(wolfpack_types::Reason::SandboxTokenInvalid))
    }
}

fn refused(reason: wolfpack_types::Reason) -> wolfpack_types::Fault {
    wolfpack_types::Fault::new(reason, "a wolf takes no keys; call the gateway")
}

#[cfg(test)]
mod tests;

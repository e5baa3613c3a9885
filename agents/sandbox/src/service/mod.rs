//! `SandboxAgentService` and `ContainerService`: check what came, call the
//! parts, map the answer.

mod containers;
mod exec;
mod layer;
mod serve;

use std::sync::Arc;

use async_trait::async_trait;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::agent::v1::sandbox_agent_service_server::SandboxAgentService;
use wolfpack_proto::agent::v1::{
    ExecRequest, GetClipboardRequest, GetClipboardResponse, GetScreenshotRequest,
    GetScreenshotResponse, GetStatusRequest, GetStatusResponse, SetClipboardRequest,
    SetClipboardResponse,
};
use wolfpack_rpc::error::to_status;
use wolfpack_rpc::request::check;
use wolfpack_runtime::Supervisor;
use wolfpack_types::sandbox_boot::SandboxBoot;
use wolfpack_types::{Fault, PortSet, Reason};

use crate::desktop::{DesktopBackend, State};
use crate::docker::Docker;
use crate::exec::Execs;

pub use layer::{ALLOWED_CALLER, Guard, LocalPeer};
pub use serve::{bind_socket, serve_socket, serve_tunnel};

/// The handlers; cheap to clone.
#[derive(Clone)]
pub struct SandboxAgent {
    boot: Arc<SandboxBoot>,
    execs: Execs,
    desktop: Option<Arc<dyn DesktopBackend>>,
    docker: Docker,
    supervisor: Supervisor,
}

impl SandboxAgent {
    /// Handlers for one boot; `desktop` when it has one, `docker` as it is.
    #[must_use]
    pub fn new(
        boot: Arc<SandboxBoot>,
        execs: Execs,
        desktop: Option<Arc<dyn DesktopBackend>>,
        docker: Docker,
        supervisor: Supervisor,
    ) -> Self {
        Self { boot, execs, desktop, docker, supervisor }
    }

    /// Ports of the sandbox's own loopback that may be dialed.
    #[must_use]
    pub fn tcp_ports(&self) -> &PortSet {
        &self.boot.tcp_ports
    }

    fn desktop(&self) -> Result<&dyn DesktopBackend, Status> {
        self.desktop.as_deref().ok_or_else(|| {
            to_status(Fault::new(
                Reason::DesktopAbsent,
                "the sandbox was created without a desktop; create one with it",
            ))
        })
    }
}

fn failed(error: impl Into<Fault>) -> Status {
    to_status(error.into())
}

#[async_trait]
impl SandboxAgentService for SandboxAgent {
    type ExecStream = exec::Responses;

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let waits_for =
            self.desktop.as_ref().and_then(|desktop| match &*desktop.state().borrow() {
                State::Up => None,
                State::Down(why) => Some(format!("the desktop is not up: {why}")),
            });
        Ok(Response::new(GetStatusResponse {
            execution_id: self.boot.execution.to_string(),
            ready: waits_for.is_none(),
            message: waits_for.unwrap_or_default(),
        }))
    }

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        exec::exec(&self.execs, &self.supervisor, request.into_inner()).await.map(Response::new)
    }

    async fn get_screenshot(
        &self,
        _request: Request<GetScreenshotRequest>,
    ) -> Result<Response<GetScreenshotResponse>, Status> {
        let picture = self.desktop()?.screenshot().await.map_err(failed)?;
        Ok(Response::new(GetScreenshotResponse {
            image: picture.image.into(),
            width: picture.width,
            height: picture.height,
        }))
    }

    async fn get_clipboard(
        &self,
        _request: Request<GetClipboardRequest>,
    ) -> Result<Response<GetClipboardResponse>, Status> {
        let text = self.desktop()?.clipboard().await.map_err(failed)?;
        Ok(Response::new(GetClipboardResponse { text }))
    }

    async fn set_clipboard(
        &self,
        request: Request<SetClipboardRequest>,
    ) -> Result<Response<SetClipboardResponse>, Status> {
        let message = request.into_inner();
        check(&message)?;
        self.desktop()?.set_clipboard(&message.text).await.map_err(failed)?;
        Ok(Response::new(SetClipboardResponse {}))
    }
}

//! Containers that the sandbox started.

use async_trait::async_trait;
use tonic::{Request, Response, Status};
use wolfpack_proto::agent::v1::container_service_server::ContainerService;
use wolfpack_proto::agent::v1::{ListContainersRequest, ListContainersResponse};
use wolfpack_rpc::error::to_status;
use wolfpack_rpc::request::check;
use wolfpack_types::{Fault, Reason};

use super::SandboxAgent;
use crate::docker::{Docker, listing};

#[async_trait]
impl ContainerService for SandboxAgent {
    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let message = request.into_inner();
        check(&message)?;
        if message.sandbox.strip_prefix("sandboxes/") != Some(self.boot.sandbox.as_str()) {
            return Err(to_status(Fault::new(
                Reason::SandboxNotFound,
                "this agent is another sandbox's; ask the sandbox-manager",
            )));
        }
        let Docker::Nested(gate) = &self.docker else {
            return Err(to_status(Fault::new(
                Reason::DockerAbsent,
                "the sandbox has no engine of its own; create one with docker = NESTED",
            )));
        };
        // One that was never used has none, and is not started to say so.
        let containers = match gate.running() {
            Some(ready) => listing::containers(&ready.socket).await.map_err(to_status)?,
            None => Vec::new(),
        };
        Ok(Response::new(ListContainersResponse { containers }))
    }
}

//! `ContainerService`: what a sandbox started.

use std::time::Duration;

use tonic::{Request, Response, Status};
use wolfpack_proto::agent::v1 as agent;
use wolfpack_proto::sandbox::v1::container_service_server::ContainerService;
use wolfpack_proto::sandbox::v1::{ListContainersRequest, ListContainersResponse};
use wolfpack_rpc::{checked, from_status, to_status};
use wolfpack_types::{DockerMode, Fault, Reason};

use super::Api;
use crate::domain::docker_of;
use crate::reach::is_lost;

/// How long a call may take that has no deadline.
const DEADLINE: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl ContainerService for Api {
    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let (caller, message) = checked(request)?;
        let sandbox = self.sandbox(&caller, &message.sandbox).await?;
        let left = caller.remaining(DEADLINE);
        let containers = match docker_of(&sandbox.asked.spec) {
            DockerMode::None => {
                return Err(to_status(
                    Fault::new(
                        Reason::DockerAbsent,
                        "the sandbox has no docker; create it with docker NESTED",
                    )
                    .about(sandbox.id.name()),
                ));
            }
            DockerMode::Nested => {
                let route = Self::route(&sandbox)?;
                self.parts.reach.containers(&route, left).await.map_err(to_status)?
            }
            DockerMode::Shared => {
                let route = Self::route(&sandbox)?;
                let request = agent::ListContainersRequest { sandbox: message.sandbox };
                let mut wolf = self.parts.peers.siblings(&route.wolf, left);
                let listed = wolf.list_containers(request).await.map_err(|status| {
                    let fault = from_status(&status);
                    if !is_lost(&fault) {
                        return to_status(fault);
                    }
                    to_status(
                        Fault::new(
                            Reason::SandboxUnreachable,
                            "the wolf of the sandbox does not answer; try again shortly",
                        )
                        .about(sandbox.id.name())
                        .with("wolf", fault.reason.as_str()),
                    )
                })?;
                listed.into_inner().containers
            }
        };
        Ok(Response::new(ListContainersResponse { containers }))
    }
}

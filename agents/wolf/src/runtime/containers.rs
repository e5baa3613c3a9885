//! `ContainerService` of a wolf: the siblings of a sandbox.

use tonic::{Request, Response, Status};
use wolfpack_proto::agent::v1::container_service_server::ContainerService;
use wolfpack_proto::agent::v1::{ListContainersRequest, ListContainersResponse};
use wolfpack_proto::sandbox::v1::{Container, ContainerRelation};
use wolfpack_rpc::{checked, to_status};
use wolfpack_types::{DockerMode, Fault, Reason, SandboxId};

use crate::engine::Sibling;
use crate::lifecycle::Lifecycle;
use crate::sandbox::labels;

/// The most containers of an answer.
const CONTAINERS: usize = 1_000;

/// The service; thin: validate, call, map.
#[derive(Clone)]
pub(crate) struct SiblingRpcs {
    lifecycle: Lifecycle,
}

impl SiblingRpcs {
    pub(crate) fn new(lifecycle: Lifecycle) -> Self {
        Self { lifecycle }
    }

    async fn list(&self, sandbox: &SandboxId) -> Result<Vec<Container>, Fault> {
        let seen = self.lifecycle.observer().of_sandbox(sandbox).ok_or_else(|| {
            Fault::new(Reason::SandboxNotFound, "the sandbox is not on this wolf")
                .about(sandbox.name())
        })?;
        if labels::docker(&seen.container.labels) != DockerMode::Shared {
            let words = "the sandbox does not share the wolf's engine: ask its own agent";
            return Err(Fault::new(Reason::DockerAbsent, words).about(sandbox.name()));
        }
        let engine = self.lifecycle.engine();
        let found = engine.siblings(labels::SIBLING_OF, Some(sandbox.as_str())).await;
        let mut found = found.map_err(|error| error.into_fault("list containers"))?;
        found.sort_by_key(|sibling| std::cmp::Reverse(sibling.create_time));
        Ok(found.into_iter().take(CONTAINERS).map(container).collect())
    }
}

fn container(sibling: Sibling) -> Container {
    Container {
        id: sibling.id,
        names: sibling.names,
        image: sibling.image,
        state: sibling.state,
        relation: ContainerRelation::Sibling.into(),
        create_time: sibling.create_time.map(Into::into),
    }
}

#[tonic::async_trait]
impl ContainerService for SiblingRpcs {
    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let (_, request) = checked(request)?;
        let sandbox =
            SandboxId::from_name(&request.sandbox).map_err(|odd| to_status(odd.into()))?;
        let containers = self.list(&sandbox).await.map_err(to_status)?;
        Ok(Response::new(ListContainersResponse { containers }))
    }
}

//! What a wolf's agent does with containers that are only rows here.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wolfpack_proto::agent::v1::create_sandbox_response::Step;
use wolfpack_proto::agent::v1::watch_sandboxes_response::Event;
use wolfpack_proto::agent::v1::wolf_runtime_service_server::WolfRuntimeService;
use wolfpack_proto::agent::v1::*;
use wolfpack_proto::sandbox::v1::LayerProgress;
use wolfpack_proto::scheduler::v1::ReservationState;
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_types::{Fault, Reason, WolfId};

use super::{CreateFault, Effect, World, fault};

pub(crate) struct Runtime {
    pub(crate) world: World,
    pub(crate) wolf: WolfId,
}

type Steps = mpsc::Sender<Result<CreateSandboxResponse, Status>>;

impl Runtime {
    fn key(&self, sandbox: &str) -> (WolfId, String) {
        (self.wolf.clone(), sandbox.to_owned())
    }

    /// Refuses who is older than the newest owner that was seen.
    fn fence(&self, sandbox: &str, epoch: i64) -> Result<(), Status> {
        self.world.with(|state| {
            let seen = state.epochs.entry(sandbox.to_owned()).or_default();
            if epoch < *seen {
                return Err(fault(Reason::OwnerFenced, "a newer owner was here"));
            }
            *seen = epoch;
            Ok(())
        })
    }

    /// Whether it comes too late; a boot that is here already does not.
    fn is_expired(&self, request: &CreateSandboxRequest) -> bool {
        let key = self.key(&request.sandbox);
        if self.world.with(|state| state.containers.contains_key(&key)) {
            return false;
        }
        let Some(reservation) = &request.reservation else { return true };
        let until = reservation.expire_time.and_then(|it| std::time::SystemTime::try_from(it).ok());
        match reservation.state() {
            ReservationState::Bound => false,
            ReservationState::Reserved => until.is_none_or(|it| it < std::time::SystemTime::now()),
            _ => true,
        }
    }

    fn tell(&self, container: &ContainerStatus) {
        let _ = self.world.inner.container_events.send((self.wolf.clone(), container.clone()));
    }

    async fn create(self, request: CreateSandboxRequest, steps: Steps) {
        let say = |step| steps.send(Ok(CreateSandboxResponse { step: Some(step) }));
        let refuse = |reason| steps.send(Err(fault(reason, "as the test wants it")));
        let trouble = self.world.with(|state| {
            *state.counts.entry("create").or_default() += 1;
            state.create_faults.pop_front()
        });
        match trouble {
            Some(CreateFault::Refuse) => return drop(refuse(Reason::ReservationRefused).await),
            Some(CreateFault::Never(reason)) => return drop(refuse(reason).await),
            Some(CreateFault::EngineFails) => return drop(refuse(Reason::EngineFailed).await),
            _ => {}
        }
        if self.is_expired(&request) {
            let fault = Fault::new(Reason::ReservationRefused, "the reservation expired")
                .with("refusal", "expired");
            return drop(steps.send(Err(wolfpack_rpc::to_status(fault))).await);
        }
        let _ = say(Step::Admitted(Admitted {})).await;
        self.world.after(Effect::Admit).await;
        match trouble {
            Some(CreateFault::ImageNotFound) => return drop(refuse(Reason::ImageNotFound).await),
            Some(CreateFault::HangInPull) => {
                let layer = LayerProgress {
                    id: "one".into(),
                    state: "Downloading".into(),
                    current_bytes: 1,
                    total_bytes: 4,
                };
                let pulling = Pulling {
                    message: "fetching".into(),
                    current_bytes: 1,
                    total_bytes: 4,
                    bytes_per_second: 7,
                    layers: vec![layer],
                };
                let _ = say(Step::Pulling(pulling)).await;
                return steps.closed().await;
            }
            _ => {}
        }
        let reservation = request.reservation.unwrap_or_default();
        let mut container = ContainerStatus {
            sandbox: request.sandbox.clone(),
            execution_id: request.execution_id.clone(),
            project: request.project.clone(),
            reservation: reservation.name,
            container_id: "abc".into(),
            ..ContainerStatus::default()
        };
        container.set_state(ContainerState::Running);
        let (made, tunnels) = self.world.with(|state| {
            let key = self.key(&request.sandbox);
            let there = state
                .containers
                .get(&key)
                .is_some_and(|it| it.execution_id == request.execution_id);
            if !there {
                state.containers.insert(key, container.clone());
            }
            (!there, state.own_tunnels)
        });
        if made {
            self.tell(&container);
        }
        self.world.after(Effect::Start).await;
        let _ = say(Step::Started(container)).await;
        if let Some(CreateFault::Exits { code, out_of_memory }) = trouble {
            self.world.end_container(&request.sandbox, code, out_of_memory);
        } else if tunnels {
            self.world.attach(&request.sandbox, &request.project, &request.execution_id);
        }
    }
}

#[tonic::async_trait]
impl WolfRuntimeService for Runtime {
    type CreateSandboxStream = BoxStream<'static, Result<CreateSandboxResponse, Status>>;
    type WatchSandboxesStream = BoxStream<'static, Result<WatchSandboxesResponse, Status>>;
    type StreamLogsStream = BoxStream<'static, Result<StreamLogsResponse, Status>>;

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Result<Response<Self::CreateSandboxStream>, Status> {
        let request = request.into_inner();
        wolfpack_rpc::check(&request)?;
        self.fence(&request.sandbox, request.owner_epoch)?;
        let (steps, said) = mpsc::channel(8);
        let this = Self { world: self.world.clone(), wolf: self.wolf.clone() };
        tokio::spawn(this.create(request, steps));
        Ok(Response::new(ReceiverStream::new(said).boxed()))
    }

    async fn remove_sandbox(
        &self,
        request: Request<RemoveSandboxRequest>,
    ) -> Result<Response<RemoveSandboxResponse>, Status> {
        let request = request.into_inner();
        self.fence(&request.sandbox, request.owner_epoch)?;
        self.world.with(|state| *state.counts.entry("removing").or_default() += 1);
        while self.world.with(|state| state.removals_hang) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let removed = self.world.with(|state| {
            *state.counts.entry("remove").or_default() += 1;
            let key = self.key(&request.sandbox);
            let this_boot = state.containers.get(&key).is_some_and(|it| {
                request.execution_id.is_empty() || it.execution_id == request.execution_id
            });
            if this_boot { state.containers.remove(&key) } else { None }
        });
        if let Some(mut container) = removed {
            self.world.detach(&request.sandbox);
            container.set_state(ContainerState::Removed);
            self.tell(&container);
        }
        self.world.after(Effect::Remove).await;
        Ok(Response::new(RemoveSandboxResponse {}))
    }

    async fn list_sandboxes(
        &self,
        _: Request<ListSandboxesRequest>,
    ) -> Result<Response<ListSandboxesResponse>, Status> {
        let containers = self.world.with(|state| {
            let here = state.containers.iter().filter(|((wolf, _), _)| *wolf == self.wolf);
            here.map(|(_, container)| container.clone()).collect()
        });
        Ok(Response::new(ListSandboxesResponse { containers }))
    }

    async fn watch_sandboxes(
        &self,
        _: Request<WatchSandboxesRequest>,
    ) -> Result<Response<Self::WatchSandboxesStream>, Status> {
        let (containers, events) = self.world.with(|state| {
            let here = state.containers.iter().filter(|((wolf, _), _)| *wolf == self.wolf);
            let here: Vec<_> = here.map(|(_, container)| container.clone()).collect();
            (here, self.world.inner.container_events.subscribe())
        });
        let response = |event| Ok(WatchSandboxesResponse { event: Some(event) });
        let snapshot: Vec<_> = containers
            .into_iter()
            .map(Event::Container)
            .chain([Event::Bookmark(WatchBookmark { snapshot_complete: true })])
            .map(response)
            .collect();
        let mine = self.wolf.clone();
        let live = stream::unfold((events, mine), move |(mut events, mine)| async move {
            loop {
                let (wolf, container) = events.recv().await.ok()?;
                if wolf == mine {
                    return Some((response(Event::Container(container)), (events, mine)));
                }
            }
        });
        Ok(Response::new(stream::iter(snapshot).chain(live).boxed()))
    }

    async fn stream_logs(
        &self,
        request: Request<StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let name = request.into_inner().sandbox;
        let there = self.world.with(|state| state.containers.contains_key(&self.key(&name)));
        if !there {
            return Err(fault(Reason::SandboxNotFound, "no such container"));
        }
        let data = format!("hello from {name}\nlast words\0\n").into();
        let piece = StreamLogsResponse { stderr: false, data };
        Ok(Response::new(stream::iter([Ok(piece)]).boxed()))
    }
}

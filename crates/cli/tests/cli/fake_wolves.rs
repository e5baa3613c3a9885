//! Three wolves, what their doctor says, and the containers of a sandbox.

use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::registry::v1 as registry;
use wolfpack_proto::registry::v1::wolf_service_server::WolfService;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::container_service_server::ContainerService;
use wolfpack_proto::sandbox::v1::doctor_service_server::DoctorService;
use wolfpack_proto::tunnel::v1 as tunnel;
use wolfpack_proto::tunnel::v1::tunnel_service_server::TunnelService;
use wolfpack_proto::types::v1 as types;
use wolfpack_types::Reason;

use crate::fake_gateway::{Answers, fault};

#[derive(Clone)]
pub(crate) struct Wolves;

fn wolf(name: &str, state: registry::WolfState) -> registry::Wolf {
    registry::Wolf {
        name: format!("wolves/{name}"),
        display_name: format!("the {name}"),
        state: state.into(),
        capacity: Some(registry::WolfCapacity {
            docker_modes: vec![types::DockerMode::Nested.into()],
            mount_paths: vec!["/srv".into()],
            ..Default::default()
        }),
        disk_pressure: "1 GiB is left".into(),
        ..Default::default()
    }
}

fn wolves() -> Vec<registry::Wolf> {
    use registry::WolfState as S;
    vec![wolf("one", S::Online), wolf("two", S::Online), wolf("three", S::Offline)]
}

#[tonic::async_trait]
impl WolfService for Wolves {
    async fn register_wolf(
        &self,
        _: Request<registry::RegisterWolfRequest>,
    ) -> Result<Response<registry::RegisterWolfResponse>, Status> {
        Err(fault(Reason::CallerForbidden))
    }

    type HeartbeatStream = Answers<registry::HeartbeatResponse>;

    async fn heartbeat(
        &self,
        _: Request<Streaming<registry::HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        Err(fault(Reason::CallerForbidden))
    }

    async fn get_wolf(
        &self,
        request: Request<registry::GetWolfRequest>,
    ) -> Result<Response<registry::GetWolfResponse>, Status> {
        let name = request.into_inner().name;
        match wolves().into_iter().find(|wolf| wolf.name == name) {
            Some(wolf) => Ok(Response::new(registry::GetWolfResponse { wolf: Some(wolf) })),
            None => Err(fault(Reason::WolfNotFound)),
        }
    }

    async fn list_wolves(
        &self,
        _: Request<registry::ListWolvesRequest>,
    ) -> Result<Response<registry::ListWolvesResponse>, Status> {
        let answer =
            registry::ListWolvesResponse { wolves: wolves(), next_page_token: String::new() };
        Ok(Response::new(answer))
    }

    type WatchWolvesStream = Answers<registry::WatchWolvesResponse>;

    async fn watch_wolves(
        &self,
        _: Request<registry::WatchWolvesRequest>,
    ) -> Result<Response<Self::WatchWolvesStream>, Status> {
        Ok(Response::new(stream::pending().boxed()))
    }
}

#[tonic::async_trait]
impl DoctorService for Wolves {
    type CheckWolfStream = Answers<pb::CheckWolfResponse>;

    /// All is well with the first, something fails with the others.
    async fn check_wolf(
        &self,
        request: Request<pb::CheckWolfRequest>,
    ) -> Result<Response<Self::CheckWolfStream>, Status> {
        let well = request.into_inner().wolf == "wolves/one";
        let check = |id: &str, outcome: pb::CheckOutcome, fix: &str| {
            let check = pb::Check {
                id: id.into(),
                outcome: outcome.into(),
                message: "seen".into(),
                fix: fix.into(),
                ..Default::default()
            };
            Ok(pb::CheckWolfResponse { check: Some(check) })
        };
        let last = match well {
            true => check("tunnel.path", pb::CheckOutcome::Pass, ""),
            false => check("engine.storage-driver", pb::CheckOutcome::Fail, "give it a volume"),
        };
        let checks = [check("kernel.version", pb::CheckOutcome::Warn, "take a newer one"), last];
        Ok(Response::new(stream::iter(checks).boxed()))
    }
}

#[tonic::async_trait]
impl ContainerService for Wolves {
    async fn list_containers(
        &self,
        _: Request<pb::ListContainersRequest>,
    ) -> Result<Response<pb::ListContainersResponse>, Status> {
        let container = |name: &str, relation: pb::ContainerRelation| pb::Container {
            id: "0123456789abcdef".into(),
            names: vec![format!("/{name}")],
            image: "alpine".into(),
            state: "running".into(),
            relation: relation.into(),
            create_time: None,
        };
        let containers = vec![
            container("within", pb::ContainerRelation::Nested),
            container("next-door", pb::ContainerRelation::Sibling),
        ];
        Ok(Response::new(pb::ListContainersResponse { containers }))
    }
}

#[tonic::async_trait]
impl TunnelService for Wolves {
    async fn get_tunnel(
        &self,
        request: Request<tunnel::GetTunnelRequest>,
    ) -> Result<Response<tunnel::GetTunnelResponse>, Status> {
        match request.into_inner().endpoint.as_str() {
            "wolves/one" => {
                Ok(Response::new(tunnel::GetTunnelResponse { tunnel: Some(attached()) }))
            }
            _ => Err(fault(Reason::EndpointNotFound)),
        }
    }

    /// The wolf's session is "now".
    async fn close_tunnel(
        &self,
        request: Request<tunnel::CloseTunnelRequest>,
    ) -> Result<Response<tunnel::CloseTunnelResponse>, Status> {
        let request = request.into_inner();
        let (ended, left) = match (request.endpoint.as_str(), request.session_id.as_str()) {
            ("wolves/one", "" | "now") if request.reason != "no" => ("now", ""),
            ("wolves/one", _) => ("", "now"),
            ("wolves/three", _) => ("", ""),
            _ => return Err(fault(Reason::RoleTooLow)),
        };
        Ok(Response::new(tunnel::CloseTunnelResponse {
            session_id: ended.to_owned(),
            attached_session_id: left.to_owned(),
        }))
    }

    async fn list_tunnels(
        &self,
        _: Request<tunnel::ListTunnelsRequest>,
    ) -> Result<Response<tunnel::ListTunnelsResponse>, Status> {
        let tunnels = vec![attached()];
        Ok(Response::new(tunnel::ListTunnelsResponse { tunnels, ..Default::default() }))
    }

    type WatchTunnelsStream = Answers<tunnel::WatchTunnelsResponse>;

    async fn watch_tunnels(
        &self,
        _: Request<tunnel::WatchTunnelsRequest>,
    ) -> Result<Response<Self::WatchTunnelsStream>, Status> {
        use tunnel::watch_tunnels_response::Event;
        let events = [Event::Attached(attached()), Event::Detached(attached())];
        let events = events
            .map(|event| Ok(tunnel::WatchTunnelsResponse { revision: 1, event: Some(event) }));
        let end = stream::iter([Err(fault(Reason::CallerForbidden))]);
        Ok(Response::new(stream::iter(events).chain(end).boxed()))
    }
}

fn attached() -> tunnel::Tunnel {
    tunnel::Tunnel {
        endpoint: "wolves/one".into(),
        targets: vec!["moonlight-web".into(), "wolf-api".into()],
        connections: 3,
        session_id: "now".into(),
        attach_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        bytes_up: 1 << 10,
        bytes_down: 2 << 20,
        limits: Some(tunnel::TunnelLimits {
            max_connections: 100,
            dials_per_second: 50,
            bytes_per_second: 0,
        }),
        ..Default::default()
    }
}

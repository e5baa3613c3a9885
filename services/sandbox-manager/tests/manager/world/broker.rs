//! Tunnels, and connections through them to the agents of this process.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::agent::v1::container_service_server::ContainerServiceServer;
use wolfpack_proto::agent::v1::sandbox_agent_service_server::SandboxAgentServiceServer;
use wolfpack_proto::agent::v1::wolf_doctor_service_server::WolfDoctorServiceServer;
use wolfpack_proto::agent::v1::wolf_image_service_server::WolfImageServiceServer;
use wolfpack_proto::agent::v1::wolf_runtime_service_server::WolfRuntimeServiceServer;
use wolfpack_proto::tunnel::v1::dial_service_server::DialService;
use wolfpack_proto::tunnel::v1::tunnel_service_server::TunnelService;
use wolfpack_proto::tunnel::v1::watch_tunnels_response::Event;
use wolfpack_proto::tunnel::v1::*;
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_types::{Endpoint, Reason, SandboxId, Target};

use super::agent::Agent;
use super::wolf::Runtime;
use super::wolf_side::WolfSide;
use super::{World, fault, not_served};

type Frames<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl TunnelService for World {
    type WatchTunnelsStream = Frames<WatchTunnelsResponse>;

    async fn get_tunnel(
        &self,
        _: Request<GetTunnelRequest>,
    ) -> Result<Response<GetTunnelResponse>, Status> {
        Err(not_served())
    }

    async fn close_tunnel(
        &self,
        _: Request<CloseTunnelRequest>,
    ) -> Result<Response<CloseTunnelResponse>, Status> {
        Err(not_served())
    }

    async fn list_tunnels(
        &self,
        _: Request<ListTunnelsRequest>,
    ) -> Result<Response<ListTunnelsResponse>, Status> {
        Err(not_served())
    }

    async fn watch_tunnels(
        &self,
        _: Request<WatchTunnelsRequest>,
    ) -> Result<Response<Self::WatchTunnelsStream>, Status> {
        let (tunnels, events) = self.with(|state| {
            let tunnels: Vec<Tunnel> = state.tunnels.values().cloned().collect();
            (tunnels, self.inner.tunnel_events.subscribe())
        });
        let response = |event| Ok(WatchTunnelsResponse { revision: 0, event: Some(event) });
        let snapshot: Vec<_> = tunnels
            .into_iter()
            .map(Event::Attached)
            .chain([Event::Bookmark(WatchBookmark { snapshot_complete: true })])
            .map(response)
            .collect();
        let live = stream::unfold(events, move |mut events| async move {
            let (attached, tunnel) = events.recv().await.ok()?;
            let event = if attached { Event::Attached(tunnel) } else { Event::Detached(tunnel) };
            Some((response(event), events))
        });
        Ok(Response::new(stream::iter(snapshot).chain(live).boxed()))
    }
}

#[tonic::async_trait]
impl DialService for World {
    type DialStream = Frames<DialResponse>;

    async fn dial(
        &self,
        request: Request<Streaming<DialRequest>>,
    ) -> Result<Response<Self::DialStream>, Status> {
        let mut input = request.into_inner();
        let Some(dial_request::Frame::Open(open)) = input.message().await?.and_then(|m| m.frame)
        else {
            return Err(fault(Reason::FirstMessageMissing, "open first"));
        };
        let io = self.connect(&open).await?;
        let (answers, answered) = mpsc::channel(4);
        let opened = dial_response::Frame::Opened(DialOpened { connection_id: "c".into() });
        answers.send(Ok(DialResponse { frame: Some(opened) })).await.unwrap();
        tokio::spawn(splice(self.clone(), open.endpoint, io, input, answers));
        Ok(Response::new(ReceiverStream::new(answered).boxed()))
    }
}

impl World {
    fn is_attached(&self, endpoint: &str) -> bool {
        self.with(|state| state.tunnels.contains_key(endpoint))
    }

    fn swallows(&self, endpoint: &str) -> bool {
        self.with(|state| state.black_holes.contains(endpoint))
    }

    /// The near end of a connection to a target.
    async fn connect(&self, open: &DialOpen) -> Result<DuplexStream, Status> {
        let patience = open.timeout.and_then(|it| Duration::try_from(it).ok()).unwrap_or_default();
        let attached = async {
            while !self.is_attached(&open.endpoint) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(patience, attached)
            .await
            .map_err(|_| fault(Reason::EndpointNotFound, "not attached"))?;
        let (near, far) = tokio::io::duplex(256 * 1024);
        let incoming = stream::iter([Ok::<_, std::io::Error>(far)]).chain(stream::pending());
        let target = Target::parse(&open.target).unwrap();
        // As the agents do it: a cancelled request is no end of it.
        let whole = tower::util::MapRequestLayer::new(wolfpack_rpc::server::whole::<Body>);
        let mut server = tonic::transport::Server::builder().layer(whole);
        match Endpoint::parse(&open.endpoint).unwrap() {
            Endpoint::Wolf(wolf) if target.service() == Target::RUNTIME => {
                let side = WolfSide { world: self.clone(), wolf: Some(wolf.clone()) };
                let runtime = WolfRuntimeServiceServer::new(Runtime { world: self.clone(), wolf });
                let server = server
                    .add_service(runtime)
                    .add_service(
                        WolfImageServiceServer::new(side.clone())
                            .max_decoding_message_size(8 << 20),
                    )
                    .add_service(WolfDoctorServiceServer::new(side.clone()))
                    .add_service(ContainerServiceServer::new(side));
                tokio::spawn(server.serve_with_incoming(incoming));
            }
            Endpoint::Wolf(_) => {
                let sandbox = SandboxId::parse(target.argument().unwrap()).unwrap();
                let agent = Agent::find(self, &sandbox.name(), "wolf")?;
                let agent =
                    SandboxAgentServiceServer::new(agent).max_decoding_message_size(8 << 20);
                let inside = WolfSide { world: self.clone(), wolf: None };
                let server =
                    server.add_service(agent).add_service(ContainerServiceServer::new(inside));
                tokio::spawn(server.serve_with_incoming(incoming));
            }
            Endpoint::Sandbox(sandbox) => {
                let agent = Agent::find(self, &sandbox.name(), "sandbox")?;
                let agent =
                    SandboxAgentServiceServer::new(agent).max_decoding_message_size(8 << 20);
                let inside = WolfSide { world: self.clone(), wolf: None };
                let server =
                    server.add_service(agent).add_service(ContainerServiceServer::new(inside));
                tokio::spawn(server.serve_with_incoming(incoming));
            }
        }
        Ok(near)
    }
}

/// Carries bytes both ways until the tunnel is gone. One that became a black
/// hole takes bytes and delivers none.
async fn splice(
    world: World,
    endpoint: String,
    io: DuplexStream,
    mut input: Streaming<DialRequest>,
    answers: mpsc::Sender<Result<DialResponse, Status>>,
) {
    let (mut from, mut to) = tokio::io::split(io);
    let up = async {
        while let Ok(Some(message)) = input.message().await {
            let carried = match message.frame {
                Some(dial_request::Frame::Data(_)) if world.swallows(&endpoint) => Ok(()),
                Some(dial_request::Frame::Data(data)) => to.write_all(&data).await,
                Some(dial_request::Frame::Fin(_)) => to.shutdown().await,
                _ => Ok(()),
            };
            if carried.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            if world.swallows(&endpoint) {
                std::future::pending::<()>().await;
            }
            let frame = if read == 0 {
                dial_response::Frame::Fin(Fin {})
            } else {
                dial_response::Frame::Data(bytes::Bytes::copy_from_slice(&buffer[..read]))
            };
            if answers.send(Ok(DialResponse { frame: Some(frame) })).await.is_err() || read == 0 {
                return;
            }
        }
    };
    let gone = async {
        while world.is_attached(&endpoint) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = async { tokio::join!(up, down); } => {}
        () = gone => {
            let _ = answers.send(Err(fault(Reason::TunnelLost, "the tunnel is gone"))).await;
        }
        () = answers.closed() => {}
    }
}

//! A gateway that behaves as its sandboxes' names say.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::registry::v1::wolf_service_server::WolfServiceServer;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::container_service_server::ContainerServiceServer;
use wolfpack_proto::sandbox::v1::doctor_service_server::DoctorServiceServer;
use wolfpack_proto::sandbox::v1::exec_input::Input;
use wolfpack_proto::sandbox::v1::exec_output::Output;
use wolfpack_proto::sandbox::v1::exec_request::Frame;
use wolfpack_proto::sandbox::v1::image_service_server::ImageServiceServer;
use wolfpack_proto::sandbox::v1::port_service_server::PortServiceServer;
use wolfpack_proto::sandbox::v1::sandbox_io_service_server::{
    SandboxIoService, SandboxIoServiceServer,
};
use wolfpack_proto::sandbox::v1::sandbox_service_server::{SandboxService, SandboxServiceServer};
use wolfpack_proto::sandbox::v1::watch_sandboxes_response::Event;
use wolfpack_proto::tunnel::v1::dial_service_server::DialServiceServer;
use wolfpack_proto::tunnel::v1::exposure_service_server::ExposureServiceServer;
use wolfpack_proto::tunnel::v1::tunnel_service_server::TunnelServiceServer;
use wolfpack_types::{Fault, Reason};

use crate::fake_dials::Dials;
use crate::fake_exposures::Exposures;
use crate::fake_images::Images;
use crate::fake_ports::Ports;
use crate::fake_wolves::Wolves;

/// The one key it takes.
pub(crate) const KEY: &str = "wp_test_key";

pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Runs until it is dropped.
pub(crate) struct FakeGateway {
    address: SocketAddr,
    pub(crate) dials: Dials,
    pub(crate) images: Images,
    good: Arc<Mutex<pb::SandboxState>>,
    _runtime: tokio::runtime::Runtime,
}

impl FakeGateway {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    /// Another one at the address of one that is gone.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = State::default();
        let good = state.good.clone();
        let (dials, images) = (Dials::default(), Images::default());
        let server = tonic::transport::Server::builder()
            // As the real one.
            .max_concurrent_streams(256)
            .add_service(DialServiceServer::with_interceptor(dials.clone(), key))
            .add_service(ImageServiceServer::with_interceptor(images.clone(), key))
            .add_service(WolfServiceServer::with_interceptor(Wolves, key))
            .add_service(TunnelServiceServer::with_interceptor(Wolves, key))
            .add_service(ExposureServiceServer::with_interceptor(Exposures::default(), key))
            .add_service(DoctorServiceServer::with_interceptor(Wolves, key))
            .add_service(ContainerServiceServer::with_interceptor(Wolves, key))
            .add_service(PortServiceServer::with_interceptor(Ports, key))
            .add_service(SandboxServiceServer::with_interceptor(state.clone(), key))
            .add_service(SandboxIoServiceServer::with_interceptor(state, key))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(server);
        Self { address, dials, images, good, _runtime: runtime }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the manager says of the good sandbox from now on.
    pub(crate) fn becomes(&self, state: pb::SandboxState) {
        *self.good.lock().unwrap() = state;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

pub(crate) fn fault(reason: Reason) -> Status {
    wolfpack_rpc::to_status(Fault::new(reason, "the test says so"))
}

#[allow(clippy::result_large_err, reason = "the signature tonic asks for")]
fn key(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("authorization") {
        Some(value) if value == format!("Bearer {KEY}").as_str() => Ok(request),
        _ => Err(fault(Reason::ApiKeyInvalid)),
    }
}

#[derive(Clone, Default)]
struct State {
    created: Arc<Mutex<Option<pb::Sandbox>>>,
    watches: Arc<AtomicU32>,
    /// The state of the good sandbox.
    good: Arc<Mutex<pb::SandboxState>>,
}

fn sandbox(name: &str) -> pb::Sandbox {
    pb::Sandbox {
        name: format!("sandboxes/{name}-id"),
        display_name: name.to_owned(),
        ..Default::default()
    }
}

fn status(state: pb::SandboxState) -> pb::SandboxStatus {
    pb::SandboxStatus { state: state.into(), ..Default::default() }
}

fn pulling(current: u64, total: u64) -> pb::SandboxStatus {
    let layer = |id: &str, state: &str| pb::LayerProgress {
        id: id.into(),
        state: state.into(),
        current_bytes: current << 20,
        total_bytes: total << 20,
    };
    let pull = pb::PullStatus {
        current_bytes: current << 20,
        total_bytes: total << 20,
        bytes_per_second: 4 << 20,
        layers: vec![layer("a", "Pull complete"), layer("b", "Downloading")],
    };
    pb::SandboxStatus { pull: Some(pull), ..status(pb::SandboxState::Pulling) }
}

#[tonic::async_trait]
impl SandboxService for State {
    async fn create_sandbox(
        &self,
        request: Request<pb::CreateSandboxRequest>,
    ) -> Result<Response<pb::CreateSandboxResponse>, Status> {
        let asked = request.into_inner().sandbox.unwrap_or_default();
        let mut made = sandbox(&asked.display_name);
        made.spec = asked.spec;
        made.status = Some(status(pb::SandboxState::Pending));
        *self.created.lock().unwrap() = Some(made.clone());
        Ok(Response::new(pb::CreateSandboxResponse { sandbox: Some(made) }))
    }

    async fn get_sandbox(
        &self,
        request: Request<pb::GetSandboxRequest>,
    ) -> Result<Response<pb::GetSandboxResponse>, Status> {
        match request.into_inner().name.as_str() {
            "sandboxes/good-id" => {
                let status = Some(status(*self.good.lock().unwrap()));
                let sandbox = pb::Sandbox { status, ..sandbox("good") };
                Ok(Response::new(pb::GetSandboxResponse { sandbox: Some(sandbox) }))
            }
            _ => Err(fault(Reason::SandboxNotFound)),
        }
    }

    async fn list_sandboxes(
        &self,
        request: Request<pb::ListSandboxesRequest>,
    ) -> Result<Response<pb::ListSandboxesResponse>, Status> {
        let request = request.into_inner();
        let (names, next) = match (request.display_name.as_str(), request.page_token.as_str()) {
            ("", "") => (vec!["good", "page-1"], "second"),
            ("", "second") => (vec!["page-2"], ""),
            ("good", "") => (vec!["good"], ""),
            _ => (vec![], ""),
        };
        let sandboxes = names.into_iter().map(sandbox).collect();
        Ok(Response::new(pb::ListSandboxesResponse { sandboxes, next_page_token: next.to_owned() }))
    }

    type WatchSandboxesStream = Answers<pb::WatchSandboxesResponse>;

    /// The first watch breaks after two events; the next must resume.
    async fn watch_sandboxes(
        &self,
        request: Request<pb::WatchSandboxesRequest>,
    ) -> Result<Response<Self::WatchSandboxesStream>, Status> {
        use pb::SandboxState as S;
        let after = request.into_inner().resume_revision;
        let first = self.watches.fetch_add(1, Ordering::SeqCst) == 0;
        let made = self.created.lock().unwrap().clone().unwrap_or_default();
        let mut statuses =
            vec![status(S::Scheduling), pulling(10, 100), pulling(95, 100), status(S::Starting)];
        statuses.push(match made.display_name.as_str() {
            "bad" => pb::SandboxStatus {
                reason: "NO_WOLF_FITS".into(),
                last_logs: "last words".into(),
                ..status(S::Failed)
            },
            "ends" => pb::SandboxStatus {
                reason: "SANDBOX_EXITED".into(),
                exit_code: Some(0),
                ..status(S::Failed)
            },
            _ => status(S::Running),
        });
        if made.display_name == "waits" {
            let events = ["queued", "queued", "no room"].map(|message| {
                let status = pb::SandboxStatus { message: message.into(), ..status(S::Scheduling) };
                let sandbox = pb::Sandbox { status: Some(status), ..made.clone() };
                let event = Some(Event::Upserted(sandbox));
                Ok(pb::WatchSandboxesResponse { revision: 1, event })
            });
            let stream = stream::iter(events).chain(stream::pending());
            return Ok(Response::new(stream.boxed()));
        }
        if !first && after != 2 {
            return Err(fault(Reason::Internal));
        }
        let broken = match made.display_name.as_str() {
            "lowered" => Reason::RoleTooLow,
            _ => Reason::ServerStopping,
        };
        let events = statuses.into_iter().zip(1..).filter(move |(_, revision)| *revision > after);
        let events = events.take(if first { 2 } else { 9 }).map(move |(status, revision)| {
            let sandbox = pb::Sandbox { status: Some(status), ..made.clone() };
            Ok(pb::WatchSandboxesResponse { revision, event: Some(Event::Upserted(sandbox)) })
        });
        let end = first.then(|| Err(fault(broken)));
        Ok(Response::new(stream::iter(events.chain(end).collect::<Vec<_>>()).boxed()))
    }

    async fn delete_sandbox(
        &self,
        _: Request<pb::DeleteSandboxRequest>,
    ) -> Result<Response<pb::DeleteSandboxResponse>, Status> {
        Err(fault(Reason::SandboxNotFound))
    }
}

#[tonic::async_trait]
impl SandboxIoService for State {
    type ExecStream = Answers<pb::ExecResponse>;

    /// Echoes stdin, tells the program's name on stderr, and exits with 7.
    async fn exec(
        &self,
        request: Request<Streaming<pb::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let mut inputs = request.into_inner();
        let Some(pb::ExecRequest { frame: Some(Frame::Start(start)) }) = inputs.message().await?
        else {
            return Err(fault(Reason::FirstMessageMissing));
        };
        let program =
            start.exec.unwrap_or_default().argv.join(" ").replace("/run/wolfpack/bin/", "");
        let chunk = |offset, data: Bytes| pb::ExecChunk { offset, data };
        let answer = |output| pb::ExecResponse {
            frame: Some(pb::exec_response::Frame::Output(pb::ExecOutput { output: Some(output) })),
        };
        let hello = answer(Output::Stderr(chunk(0, format!("{program}\n").into())));
        let mut answers = vec![Ok(hello)];
        match program.as_str() {
            "gap" => answers.push(Ok(answer(Output::Stdout(chunk(5, "x".into()))))),
            "hang" => {
                // The call stays open: what is said on it is not heard.
                let stream = stream::iter(answers).chain(stream::once(async move {
                    let _inputs = inputs;
                    std::future::pending().await
                }));
                return Ok(Response::new(stream.boxed()));
            }
            "wolfpack-sandbox-agent probe --json --expect none" => {
                let report = r#"{"ok":false,"facts":{},"checks":[{"check":"mount","question":"mount anything","verdict":"allowed","ok":false,"evidence":"tmpfs"}]}"#;
                answers.push(Ok(answer(Output::Stdout(chunk(0, report.into())))));
                answers.push(Ok(answer(Output::Exit(pb::ExecExit { code: 1, signal: 0 }))));
                return Ok(Response::new(stream::iter(answers).boxed()));
            }
            "vanish" => return Ok(Response::new(stream::iter(answers).boxed())),
            _ => {}
        }
        let echo = stream::unfold((inputs, 0), move |(mut inputs, offset)| async move {
            match inputs.message().await {
                Ok(Some(pb::ExecRequest {
                    frame: Some(Frame::Input(pb::ExecInput { input: Some(Input::Stdin(data)) })),
                })) => {
                    let next = offset + data.len() as u64;
                    Some((Ok(answer(Output::Stdout(chunk(offset, data)))), (inputs, next)))
                }
                _ => None,
            }
        });
        let exit = answer(Output::Exit(pb::ExecExit { code: 7, signal: 0 }));
        Ok(Response::new(stream::iter(answers).chain(echo).chain(stream::iter([Ok(exit)])).boxed()))
    }

    type StreamLogsStream = Answers<pb::StreamLogsResponse>;

    async fn stream_logs(
        &self,
        _: Request<pb::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        Err(fault(Reason::SandboxNotRunning))
    }
}

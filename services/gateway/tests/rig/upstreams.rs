//! Services behind, as far as the gateway can tell: real servers of the kit,
//! each with its own certificate, that remember what reached them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Body as _;
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;
use wolfpack_proto::sandbox::v1::desktop_service_server::{DesktopService, DesktopServiceServer};
use wolfpack_proto::sandbox::v1::*;
use wolfpack_proto::tunnel::v1::dial_service_server::{DialService, DialServiceServer};
use wolfpack_proto::tunnel::v1::*;
use wolfpack_rpc::auth::Authority;
use wolfpack_rpc::error::to_status;
use wolfpack_rpc::policy::{Allow, PolicyRow, RpcKind};
use wolfpack_rpc::request::caller;
use wolfpack_rpc::server::{ListenConfig, Profile, Server};
use wolfpack_runtime::Context;
use wolfpack_types::{ApiKeyId, Fault, Principal, ProjectId, Reason, Role, UserId};

use super::{Sandboxes, TestCa};

pub const KEY: &str = "wp_good";
/// Of another project, to which no sandbox belongs.
pub const OTHER_KEY: &str = "wp_other";

const fn row(method: &'static str, allow: Allow, kind: RpcKind) -> PolicyRow {
    PolicyRow { method, allow, kind }
}

const USERS: Allow = Allow { users: Some(Role::Viewer), services: &["gateway"], ..Allow::NOBODY };

const DIALERS: Allow = Allow { links: true, ..USERS };

const POLICY: &[PolicyRow] = &[
    // The gateway itself is let in too: what has no credential must not get here.
    row("/wolfpack.sandbox.v1.DesktopService/GetScreenshot", USERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.DesktopService/GetClipboard", USERS, RpcKind::Unary),
    row("/wolfpack.sandbox.v1.DesktopService/SetClipboard", USERS, RpcKind::Unary),
    row("/wolfpack.tunnel.v1.DialService/Dial", DIALERS, RpcKind::Stream),
    row("/wolfpack.registry.v1.IdentityService/JoinWolf", Allow::ANYONE, RpcKind::Unary),
];

/// What reached a service.
#[derive(Clone)]
pub struct Seen {
    pub headers: Arc<Mutex<Vec<HeaderMap>>>,
    pub principals: Arc<Mutex<Vec<Principal>>>,
    /// The time that was left when the call came.
    pub left: Arc<Mutex<Vec<Option<Duration>>>>,
    /// Streams that were dropped before their end.
    pub cancelled: watch::Sender<u32>,
}

impl Seen {
    fn new() -> Self {
        Self {
            headers: Arc::default(),
            principals: Arc::default(),
            left: Arc::default(),
            cancelled: watch::Sender::new(0),
        }
    }

    fn note<T>(&self, request: &Request<T>) {
        let caller = caller(request);
        self.headers.lock().push(request.metadata().clone().into_headers());
        let left = caller
            .deadline
            .map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        self.left.lock().push(left);
        self.principals.lock().push(caller.principal);
    }
}

struct Keys;

#[tonic::async_trait]
impl Authority for Keys {
    async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
        if key != KEY && key != OTHER_KEY {
            return Err(Fault::new(Reason::ApiKeyInvalid, "the api key is unknown"));
        }
        Ok(Principal::User {
            user: UserId::parse(if key == KEY { "ada" } else { "eve" }).unwrap(),
            key: ApiKeyId::new(),
            project: ProjectId::new(),
            role: Role::Viewer,
            platform_admin: false,
            expires: None,
        })
    }
    async fn sandbox_token(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::SandboxTokenInvalid, "the token is unknown"))
    }
    async fn link(&self, link: &str) -> Result<Principal, Fault> {
        super::sandboxes::verify(link)
    }
}

#[derive(Clone)]
struct Desktops(Seen);

#[tonic::async_trait]
impl DesktopService for Desktops {
    async fn get_screenshot(
        &self,
        request: Request<GetScreenshotRequest>,
    ) -> Result<Response<GetScreenshotResponse>, Status> {
        self.0.note(&request);
        let sandbox = request.into_inner().sandbox;
        match sandbox.as_str() {
            "sandboxes/here" => Ok(Response::new(GetScreenshotResponse {
                image: vec![7; 6 << 20].into(),
                media_type: "text/html".into(),
                width: 2,
                height: 1,
                via: TunnelPath::Wolf.into(),
            })),
            "sandboxes/slow" => {
                let _alive = Alive { seen: self.0.clone(), over: false };
                tokio::time::sleep(Duration::from_secs(60)).await;
                Err(Status::internal("nobody waits for this"))
            }
            _ => Err(to_status(
                Fault::new(Reason::SandboxNotFound, "there is no such sandbox")
                    .about(sandbox)
                    .with("hint", "list them")
                    .violates("sandbox", "names none")
                    .retry_in(Duration::from_secs(3)),
            )),
        }
    }

    async fn get_clipboard(
        &self,
        _: Request<GetClipboardRequest>,
    ) -> Result<Response<GetClipboardResponse>, Status> {
        Err(Status::permission_denied("not in this test"))
    }
    async fn set_clipboard(
        &self,
        _: Request<SetClipboardRequest>,
    ) -> Result<Response<SetClipboardResponse>, Status> {
        Err(Status::permission_denied("not in this test"))
    }
}

#[derive(Clone)]
struct Dials(Seen, Sandboxes);

/// Counts a stream that ends without its end.
struct Alive {
    seen: Seen,
    over: bool,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if !self.over {
            self.seen.cancelled.send_modify(|count| *count += 1);
        }
    }
}

#[tonic::async_trait]
impl DialService for Dials {
    type DialStream = Pin<Box<dyn Stream<Item = Result<DialResponse, Status>> + Send>>;

    /// Echoes each frame as it comes; at the half-close says how many there
    /// were, then ends with an error that has details.
    async fn dial(
        &self,
        request: Request<Streaming<DialRequest>>,
    ) -> Result<Response<Self::DialStream>, Status> {
        self.0.note(&request);
        let principal = caller(&request).principal;
        let mut frames = request.into_inner();
        let first = frames.message().await?;
        if let Some(DialRequest { frame: Some(dial_request::Frame::Open(open)) }) = &first
            && open.target.starts_with("tcp:")
        {
            let stream = self.1.dial(&principal, open, frames).await;
            return stream.map(Response::new).map_err(to_status);
        }
        let first = futures::stream::iter(first.map(Ok));
        let mut frames = Box::pin(first.chain(frames));
        let alive = Alive { seen: self.0.clone(), over: false };
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            // All of it lives here, not only the field that is written.
            let mut alive = alive;
            let mut count = 0;
            loop {
                let answer = match frames.next().await.transpose() {
                    Ok(Some(DialRequest { frame: Some(dial_request::Frame::Data(data)) })) => {
                        count += 1;
                        Ok(data)
                    }
                    Ok(Some(_)) => continue,
                    Ok(None) => {
                        alive.over = true;
                        let _ = sender.send(Ok(respond(format!("{count} frames").into()))).await;
                        let fault = Fault::new(Reason::ConnectionReset, "reset")
                            .with("count", count.to_string());
                        let _ = sender.send(Err(to_status(fault))).await;
                        return;
                    }
                    Err(status) => Err(status),
                };
                let failed = answer.is_err();
                if sender.send(answer.map(respond)).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}

fn respond(data: bytes::Bytes) -> DialResponse {
    DialResponse { frame: Some(dial_response::Frame::Data(data)) }
}

/// One service that runs.
pub struct Upstream {
    pub context: Context,
    pub address: SocketAddr,
    pub seen: Seen,
    pub sandboxes: Sandboxes,
}

impl Upstream {
    pub async fn start(ca: &TestCa, name: &'static str) -> Self {
        let context = Context::quiet(name);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = ListenConfig::mutual(any, ca.service(name)).bind().await.unwrap();
        let address = listener.local_addr();
        let (seen, sandboxes) = (Seen::new(), Sandboxes::default());
        let mut builder = Server::builder(&context, POLICY, Arc::new(Keys));
        builder = match name {
            "sandbox-manager" => {
                builder.add_service(DesktopServiceServer::new(Desktops(seen.clone())))
            }
            "tunnel-broker" => {
                let dials = Dials(seen.clone(), sandboxes.clone());
                builder.add_service(DialServiceServer::new(dials))
            }
            "registry" => builder.add_raw(
                "/wolfpack.registry.v1.IdentityService/JoinWolf",
                service_fn(|request: http::Request<Body>| async {
                    // The token is in the message.
                    let mut message = request.into_body();
                    while let Some(Ok(_)) =
                        poll_fn(|cx| Pin::new(&mut message).poll_frame(cx)).await
                    {
                    }
                    let fault = Fault::new(Reason::JoinTokenInvalid, "the token is spent");
                    Ok::<_, Infallible>(to_status(fault).into_http::<Body>())
                }),
            ),
            _ => builder,
        };
        let server = builder.listen(listener, Profile::internal()).build();
        let health = server.health();
        context.supervisor.spawn_essential(name, server.serve());
        health.serving().await;
        Self { context, address, seen, sandboxes }
    }
}

/// All four.
pub struct Upstreams(pub BTreeMap<&'static str, Upstream>);

impl Upstreams {
    pub async fn start(ca: &TestCa) -> Self {
        let mut all = BTreeMap::new();
        for name in ["registry", "scheduler", "tunnel-broker", "sandbox-manager"] {
            all.insert(name, Upstream::start(ca, name).await);
        }
        Self(all)
    }
}

//! A server under test: the registry's `WolfService`, whose wolves behave as
//! they are called.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::wolf_service_server::{WolfService, WolfServiceServer};
use wolfpack_proto::registry::v1::*;
use wolfpack_rpc::server::Server;
use wolfpack_rpc::{
    Allow, Authority, ByteBudget, HealthHandle, ListenConfig, PeerConfig, PolicyRow, Profile,
    RpcChannel, RpcKind, checked, to_status,
};
use wolfpack_runtime::{BoxError, Context};
use wolfpack_types::{ApiKeyId, Fault, Principal, ProjectId, Reason, Role, UserId};

const DEVELOPERS: Allow =
    Allow { users: Some(Role::Developer), services: &["*"], wolves: true, ..Allow::NOBODY };

/// ListWolves has no row, on purpose.
pub(crate) const POLICY: &[PolicyRow] = &[
    row("/wolfpack.registry.v1.WolfService/GetWolf", DEVELOPERS, RpcKind::Unary),
    row("/wolfpack.registry.v1.WolfService/WatchWolves", DEVELOPERS, RpcKind::Stream),
    row("/wolfpack.registry.v1.WolfService/Heartbeat", DEVELOPERS, RpcKind::Stream),
    row("/wolfpack.registry.v1.WolfService/RegisterWolf", Allow::ANYONE, RpcKind::Unary),
];

const fn row(method: &'static str, allow: Allow, kind: RpcKind) -> PolicyRow {
    PolicyRow { method, allow, kind }
}

/// Handlers that ran, and handlers that run now.
#[derive(Default, Clone)]
pub(crate) struct Probe {
    pub(crate) ran: Arc<AtomicUsize>,
    pub(crate) running: Arc<AtomicUsize>,
}

pub(crate) struct Inside(Arc<AtomicUsize>);

impl Probe {
    fn enter(&self) -> Inside {
        self.ran.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        Inside(Arc::clone(&self.running))
    }

    pub(crate) fn ran(&self) -> usize {
        self.ran.load(Ordering::SeqCst)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Default)]
pub(crate) struct Wolves {
    pub(crate) probe: Probe,
    /// Where `wolves/relay` asks on.
    pub(crate) next: Option<RpcChannel>,
    /// Reads heartbeats in a task of its own, and says how they ended here: with
    /// what reason, or well.
    pub(crate) ends: Option<tokio::sync::mpsc::Sender<Option<Reason>>>,
}

type Events = Pin<Box<dyn Stream<Item = Result<WatchWolvesResponse, Status>> + Send>>;
type Beats = Pin<Box<dyn Stream<Item = Result<HeartbeatResponse, Status>> + Send>>;

#[async_trait]
impl WolfService for Wolves {
    async fn get_wolf(
        &self,
        request: Request<GetWolfRequest>,
    ) -> Result<Response<GetWolfResponse>, Status> {
        let _inside = self.probe.enter();
        let (caller, message) = checked(request)?;
        let left =
            caller.deadline.map(|_| caller.remaining(Duration::ZERO).as_millis().to_string());
        match message.name.as_str() {
            "wolves/slow" => tokio::time::sleep(Duration::from_secs(60)).await,
            "wolves/panic" => panic!("the test asked for it"),
            "wolves/missing" => {
                return Err(to_status(
                    Fault::new(Reason::WolfNotFound, "there is no such wolf; list them")
                        .about(message.name),
                ));
            }
            "wolves/relay" => {
                let next = self.next.clone().expect("a next hop");
                let request = GetWolfRequest { name: "wolves/ok".into() };
                return WolfServiceClient::new(next).get_wolf(request).await;
            }
            _ => {}
        }
        let wolf = Wolf {
            name: message.name,
            display_name: caller.principal.to_string(),
            state_message: left.unwrap_or_else(|| "none".into()),
            agent_version: caller.request_id,
            ..Wolf::default()
        };
        Ok(Response::new(GetWolfResponse { wolf: Some(wolf) }))
    }

    async fn register_wolf(
        &self,
        _request: Request<RegisterWolfRequest>,
    ) -> Result<Response<RegisterWolfResponse>, Status> {
        let _inside = self.probe.enter();
        Ok(Response::new(RegisterWolfResponse::default()))
    }

    type HeartbeatStream = Beats;
    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Beats>, Status> {
        let inside = self.probe.enter();
        let mut beats = request.into_inner();
        if let Some(ends) = self.ends.clone() {
            tokio::spawn(async move {
                let end = loop {
                    match beats.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break None,
                        Err(status) => break Some(wolfpack_rpc::from_status(&status).reason),
                    }
                };
                let _ = ends.send(end).await;
            });
            return Ok(Response::new(Box::pin(futures::stream::pending())));
        }
        let beats = beats.map(move |beat| {
            let _inside = &inside;
            beat.map(|beat| HeartbeatResponse { sequence: beat.sequence, ..Default::default() })
        });
        Ok(Response::new(Box::pin(beats)))
    }

    async fn list_wolves(
        &self,
        _: Request<ListWolvesRequest>,
    ) -> Result<Response<ListWolvesResponse>, Status> {
        let _inside = self.probe.enter();
        Ok(Response::new(ListWolvesResponse::default()))
    }

    type WatchWolvesStream = Events;
    /// Counts for ever; panics at the revision it is told to resume from,
    /// never answers at all for 77.
    async fn watch_wolves(
        &self,
        request: Request<WatchWolvesRequest>,
    ) -> Result<Response<Events>, Status> {
        let inside = self.probe.enter();
        let fuse = request.into_inner().resume_revision;
        if fuse == 77 {
            std::future::pending::<()>().await;
        }
        let events = futures::stream::unfold((1, inside), move |(revision, inside)| async move {
            if revision > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(revision != fuse, "the test asked for it");
            Some((
                Ok(WatchWolvesResponse { revision, ..Default::default() }),
                (revision + 1, inside),
            ))
        });
        Ok(Response::new(Box::pin(events)))
    }
}

/// Knows `wp_developer` and `wp_viewer`.
pub(crate) struct Keys;

#[async_trait]
impl Authority for Keys {
    async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
        let role = match key {
            "wp_developer" => Role::Developer,
            "wp_viewer" => Role::Viewer,
            _ => return Err(Fault::new(Reason::ApiKeyInvalid, "unknown; make a new one")),
        };
        Ok(Principal::User {
            user: UserId::parse(&key[3..]).unwrap(),
            key: ApiKeyId::new(),
            project: ProjectId::new(),
            role,
            platform_admin: false,
            expires: None,
        })
    }

    async fn sandbox_token(&self, _token: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::SandboxTokenInvalid, "unknown; read it again"))
    }
}

/// A running server and what looks into it.
pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) address: SocketAddr,
    pub(crate) probe: Probe,
    pub(crate) health: HealthHandle,
    pub(crate) served: JoinHandle<Result<(), BoxError>>,
}

pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl World {
    pub(crate) async fn plain(change: impl FnOnce(&mut Profile)) -> Self {
        Self::start(&ListenConfig::plain(ANY), change, Wolves::default()).await
    }

    pub(crate) async fn start(
        listen: &ListenConfig,
        change: impl FnOnce(&mut Profile),
        wolves: Wolves,
    ) -> Self {
        Self::of(Context::quiet("registry"), listen, change, wolves).await
    }

    pub(crate) async fn of(
        context: Context,
        listen: &ListenConfig,
        change: impl FnOnce(&mut Profile),
        wolves: Wolves,
    ) -> Self {
        let mut profile = Profile::internal();
        change(&mut profile);
        profile.budget = crate::data_plane::is_meant().then(|| {
            // No budget of the world's own is smaller than the window it asked for.
            ByteBudget::new(1 << 30, profile.stream_window)
        });
        let listener = listen.bind().await.unwrap();
        let address = listener.local_addr();
        let probe = wolves.probe.clone();
        let server = Server::builder(&context, POLICY, Arc::new(Keys))
            .descriptor_set(wolfpack_proto::DESCRIPTOR_SET)
            .add_service(WolfServiceServer::new(wolves))
            .listen(listener, profile)
            .build();
        let health = server.health();
        let served = tokio::spawn(server.serve());
        health.serving().await;
        Self { context, address, probe, health, served }
    }

    /// A channel without a credential.
    pub(crate) fn channel(&self) -> RpcChannel {
        let peer = PeerConfig::at(format!("http://{}", self.address));
        if crate::data_plane::is_meant() {
            return RpcChannel::for_tunnel(&peer, "registry", None, &ByteBudget::default())
                .unwrap();
        }
        RpcChannel::to_service(&peer, "registry", None).unwrap()
    }

    /// A client with a developer's key.
    pub(crate) fn client(&self) -> WolfServiceClient<RpcChannel> {
        WolfServiceClient::new(self.channel().with_bearer(secret("wp_developer")))
    }

    /// A metric's value, summed over the labels that contain all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.context
            .telemetry
            .prometheus()
            .lines()
            .filter(|line| {
                line.starts_with(name) && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Stops the server and waits for its end.
    pub(crate) async fn stop(self) {
        self.context.supervisor.token().cancel();
        self.served.await.unwrap().unwrap();
        let report = self.context.supervisor.shutdown(Duration::from_secs(5)).await;
        assert!(report.aborted.is_empty(), "{report:?}");
    }
}

pub(crate) fn secret(text: &str) -> secrecy::SecretString {
    secrecy::SecretString::from(text.to_owned())
}

pub(crate) fn get(name: &str) -> GetWolfRequest {
    GetWolfRequest { name: name.to_owned() }
}

/// The reason of a status that a call ended with.
pub(crate) fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> Reason {
    wolfpack_rpc::from_status(&answer.unwrap_err()).reason
}

/// Waits until something holds; says what was seen last when it does not.
pub(crate) async fn eventually<T: std::fmt::Debug>(
    mut look: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let seen = look();
        if holds(&seen) {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "not within 10 s; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

//! A registry that a test can tell what the fleet is. It speaks the real
//! protocol over the real kit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wolfpack_proto::registry::v1::watch_wolves_response::Event;
use wolfpack_proto::registry::v1::wolf_service_server::{WolfService, WolfServiceServer};
use wolfpack_proto::registry::v1::*;
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::auth::Authority;
use wolfpack_rpc::policy::{Allow, PolicyRow, RpcKind};
use wolfpack_rpc::server::{ListenConfig, Profile, Server};
use wolfpack_runtime::Context;
use wolfpack_types::{Fault, Principal, Reason};

use super::TestCa;

const POLICY: &[PolicyRow] = &[
    PolicyRow {
        method: "/wolfpack.registry.v1.WolfService/WatchWolves",
        allow: Allow { services: &["scheduler"], ..Allow::NOBODY },
        kind: RpcKind::Stream,
    },
    PolicyRow {
        method: "/wolfpack.registry.v1.IdentityService/Introspect",
        allow: Allow { services: &["scheduler"], ..Allow::NOBODY },
        kind: RpcKind::Unary,
    },
];

#[derive(Default)]
struct Fleet {
    revision: i64,
    /// Of each wolf that is or was there: the revision of its last change.
    wolves: BTreeMap<String, (i64, Option<Wolf>)>,
}

/// What the fake registry says.
#[derive(Clone)]
pub struct FakeRegistry {
    fleet: Arc<Mutex<Fleet>>,
    changed: watch::Sender<i64>,
    /// Revisions that watches began from.
    pub watched_from: Arc<Mutex<Vec<i64>>>,
}

impl FakeRegistry {
    pub fn new() -> Self {
        Self { fleet: Arc::default(), changed: watch::Sender::new(0), watched_from: Arc::default() }
    }

    pub fn put(&self, wolf: Wolf) {
        self.change(wolf.name.clone(), Some(wolf));
    }

    pub fn remove(&self, name: &str) {
        self.change(name.to_owned(), None);
    }

    fn change(&self, name: String, wolf: Option<Wolf>) {
        let revision = {
            let mut fleet = self.fleet.lock();
            fleet.revision += 1;
            let revision = fleet.revision;
            fleet.wolves.insert(name, (revision, wolf));
            revision
        };
        self.changed.send_replace(revision);
    }

    /// Everything after a revision, and the revision it leads to.
    fn since(&self, after: i64) -> (i64, Vec<WatchWolvesResponse>) {
        let fleet = self.fleet.lock();
        let mut news: Vec<(i64, Event)> = fleet
            .wolves
            .iter()
            .filter(|(_, (revision, wolf))| *revision > after && (after > 0 || wolf.is_some()))
            .map(|(name, (revision, wolf))| {
                let event =
                    wolf.clone().map_or_else(|| Event::Deleted(name.clone()), Event::Upserted);
                (*revision, event)
            })
            .collect();
        news.sort_by_key(|(revision, _)| *revision);
        let responses = news
            .into_iter()
            .map(|(revision, event)| WatchWolvesResponse {
                revision,
                event: Some(event),
                send_time: None,
            })
            .collect();
        (fleet.revision, responses)
    }

    /// Serves at `address` until the context's supervisor stops.
    pub async fn serve(&self, ca: &TestCa, context: &Context, address: SocketAddr) -> SocketAddr {
        let listener = ListenConfig::mutual(address, ca.service("registry")).bind().await.unwrap();
        let address = listener.local_addr();
        let server = Server::builder(context, POLICY, Arc::new(NoUsers))
            .add_service(WolfServiceServer::new(self.clone()))
            .listen(listener, Profile::internal())
            .build();
        let health = server.health();
        context.supervisor.spawn_essential("registry", server.serve());
        health.serving().await;
        address
    }
}

struct NoUsers;

#[tonic::async_trait]
impl Authority for NoUsers {
    async fn api_key(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::ApiKeyInvalid, "no users here"))
    }
    async fn sandbox_token(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::SandboxTokenInvalid, "no sandboxes here"))
    }
}

#[tonic::async_trait]
impl WolfService for FakeRegistry {
    type HeartbeatStream =
        Pin<Box<dyn futures::Stream<Item = Result<HeartbeatResponse, Status>> + Send>>;
    type WatchWolvesStream = ReceiverStream<Result<WatchWolvesResponse, Status>>;

    async fn watch_wolves(
        &self,
        request: Request<WatchWolvesRequest>,
    ) -> Result<Response<Self::WatchWolvesStream>, Status> {
        let from = request.into_inner().resume_revision;
        self.watched_from.lock().push(from);
        let (events, receiver) = tokio::sync::mpsc::channel(16);
        let this = self.clone();
        let mut changed = self.changed.subscribe();
        tokio::spawn(async move {
            let mut at = from;
            let mut complete = from > 0;
            loop {
                let (revision, news) = this.since(at);
                at = revision;
                for event in news {
                    if events.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                if !complete {
                    complete = true;
                    let bookmark = Event::Bookmark(WatchBookmark { snapshot_complete: true });
                    let event =
                        WatchWolvesResponse { revision, event: Some(bookmark), send_time: None };
                    if events.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = changed.changed() => if changed.is_err() { return },
                    () = events.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn register_wolf(
        &self,
        _: Request<RegisterWolfRequest>,
    ) -> Result<Response<RegisterWolfResponse>, Status> {
        Err(Status::permission_denied("not in this test"))
    }
    async fn heartbeat(
        &self,
        _: Request<tonic::Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        Err(Status::permission_denied("not in this test"))
    }
    async fn get_wolf(
        &self,
        _: Request<GetWolfRequest>,
    ) -> Result<Response<GetWolfResponse>, Status> {
        Err(Status::permission_denied("not in this test"))
    }
    async fn list_wolves(
        &self,
        _: Request<ListWolvesRequest>,
    ) -> Result<Response<ListWolvesResponse>, Status> {
        Err(Status::permission_denied("not in this test"))
    }
}

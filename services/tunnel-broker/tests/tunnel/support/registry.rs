//! As much of a registry as a broker talks to.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use wolfpack_proto::registry::v1::watch_revocations_response as revocations;
use wolfpack_proto::registry::v1::watch_wolves_response as wolves;
use wolfpack_proto::registry::v1::{
    RegisterWolfRequest, RegisterWolfResponse, RevokedSandbox, WatchRevocationsRequest,
    WatchRevocationsResponse, WatchWolvesRequest, WatchWolvesResponse, Wolf,
};
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::{Allow, ListenConfig, PolicyRow, Profile, RpcKind, Server, caller};
use wolfpack_runtime::Context;

use super::{Bearers, Ca};

const BROKER: Allow = Allow { services: &["tunnel-broker"], ..Allow::NOBODY };
const WOLVES: &str = "/wolfpack.registry.v1.WolfService/WatchWolves";
const REVOCATIONS: &str = "/wolfpack.registry.v1.IdentityService/WatchRevocations";
const REGISTER: &str = "/wolfpack.registry.v1.WolfService/RegisterWolf";
const POLICY: &[PolicyRow] = &[
    PolicyRow { method: WOLVES, allow: BROKER, kind: RpcKind::Stream },
    PolicyRow { method: REVOCATIONS, allow: BROKER, kind: RpcKind::Stream },
    // Allowed, and answered by nobody.
    PolicyRow {
        method: "/wolfpack.registry.v1.WolfService/Heartbeat",
        allow: Allow { wolves: true, ..Allow::NOBODY },
        kind: RpcKind::Stream,
    },
    PolicyRow {
        method: REGISTER,
        allow: Allow { wolves: true, ..Allow::NOBODY },
        kind: RpcKind::Unary,
    },
];

type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    wolves: broadcast::Sender<WatchWolvesResponse>,
    revocations: broadcast::Sender<WatchRevocationsResponse>,
    context: Context,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.context.supervisor.token().cancel();
    }
}

impl Registry {
    pub(crate) async fn start(ca: &Ca, folder: &Path) -> Self {
        let context = Context::quiet("registry");
        let tls = ca.service(folder, "registry");
        let listener =
            ListenConfig::mutual("127.0.0.1:0".parse().unwrap(), tls).bind().await.unwrap();
        let address = listener.local_addr();
        let (wolves, revocations) = (broadcast::channel(64).0, broadcast::channel(64).0);
        let (wolves_sent, revocations_sent) = (wolves.clone(), revocations.clone());
        let watch_wolves = tower::service_fn(move |request: http::Request<Body>| {
            let events = BroadcastStream::new(wolves_sent.subscribe())
                .map(|e| e.map_err(|_| Status::internal("lag")));
            let first = WatchWolvesResponse {
                event: Some(wolves::Event::Bookmark(WatchBookmark { snapshot_complete: true })),
                ..WatchWolvesResponse::default()
            };
            let all: Streaming<WatchWolvesResponse> =
                Box::pin(futures::stream::once(async { Ok(first) }).chain(events));
            let mut all = Some(all);
            let answer = tower::service_fn(move |_: Request<WatchWolvesRequest>| {
                let all = all.take().ok_or_else(|| Status::internal("once"));
                async move { all.map(Response::new) }
            });
            async move {
                Ok::<_, std::convert::Infallible>(
                    Grpc::new(ProstCodec::default()).server_streaming(answer, request).await,
                )
            }
        });
        let watch_revocations = tower::service_fn(move |request: http::Request<Body>| {
            let events = BroadcastStream::new(revocations_sent.subscribe())
                .map(|e| e.map_err(|_| Status::internal("lag")));
            let all: Streaming<WatchRevocationsResponse> = Box::pin(events);
            let mut all = Some(all);
            let answer = tower::service_fn(move |_: Request<WatchRevocationsRequest>| {
                let all = all.take().ok_or_else(|| Status::internal("once"));
                async move { all.map(Response::new) }
            });
            async move {
                Ok::<_, std::convert::Infallible>(
                    Grpc::new(ProstCodec::default()).server_streaming(answer, request).await,
                )
            }
        });
        let register = tower::service_fn(|request: http::Request<Body>| {
            let answer = tower::service_fn(|request: Request<RegisterWolfRequest>| async move {
                let name = caller(&request).principal.to_string();
                let wolf = Wolf { name, ..Wolf::default() };
                Ok::<_, Status>(Response::new(RegisterWolfResponse {
                    wolf: Some(wolf),
                    ..Default::default()
                }))
            });
            async move {
                Ok::<_, std::convert::Infallible>(
                    Grpc::new(ProstCodec::default()).unary(answer, request).await,
                )
            }
        });
        let server = Server::builder(&context, POLICY, Arc::new(Bearers::default()))
            .add_raw(WOLVES, watch_wolves)
            .add_raw(REVOCATIONS, watch_revocations)
            .add_raw(REGISTER, register)
            .listen(listener, Profile::internal())
            .build();
        context.supervisor.spawn_essential("registry", server.serve());
        Self { address, wolves, revocations, context }
    }

    /// Waits until the broker follows both watches.
    pub(crate) async fn followed(&self) {
        let watched = || self.wolves.receiver_count() > 0 && self.revocations.receiver_count() > 0;
        super::eventually(watched, || "the broker follows the registry".to_owned()).await;
    }

    pub(crate) fn upsert(&self, wolf: Wolf) {
        let event = Some(wolves::Event::Upserted(wolf));
        self.wolves.send(WatchWolvesResponse { event, ..Default::default() }).unwrap();
    }

    pub(crate) fn revoke(&self, sandbox: &str, execution: &str) {
        let revoked =
            RevokedSandbox { sandbox: sandbox.to_owned(), execution_id: execution.to_owned() };
        let event = Some(revocations::Event::Sandbox(revoked));
        self.revocations.send(WatchRevocationsResponse { event, ..Default::default() }).unwrap();
    }
}

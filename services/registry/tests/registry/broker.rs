//! A broker that says which tunnels are attached, and nothing else.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};
use wolfpack_proto::tunnel::v1::tunnel_service_server::{TunnelService, TunnelServiceServer};
use wolfpack_proto::tunnel::v1::watch_tunnels_response::Event;
use wolfpack_proto::tunnel::v1::{
    CloseTunnelRequest, CloseTunnelResponse, GetTunnelRequest, GetTunnelResponse,
    ListTunnelsRequest, ListTunnelsResponse, Tunnel, WatchTunnelsRequest, WatchTunnelsResponse,
};
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::{
    Allow, Authority, ListenConfig, PolicyRow, Profile, RpcKind, Server, TlsConfig,
};
use wolfpack_runtime::Context;
use wolfpack_types::{Fault, Principal, Reason};

const POLICY: &[PolicyRow] = &[PolicyRow {
    method: "/wolfpack.tunnel.v1.TunnelService/WatchTunnels",
    allow: Allow { services: &["registry"], ..Allow::NOBODY },
    kind: RpcKind::Stream,
}];

/// See the module.
#[derive(Clone)]
pub(crate) struct Broker {
    attached: Arc<parking_lot::Mutex<BTreeMap<String, String>>>,
    events: broadcast::Sender<Event>,
}

impl Broker {
    /// Serves as `svc/tunnel-broker` and answers its address.
    pub(crate) async fn start(context: &Context, tls: TlsConfig) -> (Self, String) {
        let broker = Self { attached: Arc::default(), events: broadcast::channel(256).0 };
        let listen = ListenConfig::mutual("127.0.0.1:0".parse().unwrap(), tls);
        let listener = listen.bind().await.unwrap();
        let address = format!("https://{}", listener.local_addr());
        let server = Server::builder(context, POLICY, Arc::new(NoKeys))
            .add_service(TunnelServiceServer::new(broker.clone()))
            .listen(listener, Profile::internal())
            .build();
        context.supervisor.spawn_essential("broker", server.serve());
        (broker, address)
    }

    /// Attaches a tunnel under a session.
    pub(crate) fn attach(&self, endpoint: &str, session: &str) {
        let mut attached = self.attached.lock();
        attached.insert(session.to_owned(), endpoint.to_owned());
        let _ = self.events.send(Event::Attached(tunnel(endpoint, session)));
    }

    /// Ends a session.
    pub(crate) fn detach(&self, session: &str) {
        let mut attached = self.attached.lock();
        if let Some(endpoint) = attached.remove(session) {
            let _ = self.events.send(Event::Detached(tunnel(&endpoint, session)));
        }
    }

    /// Forgets everything without a word, as a broker does that starts anew,
    /// and ends all watches.
    pub(crate) fn lose_memory(&mut self) {
        let mut attached = self.attached.lock();
        attached.clear();
        let _ = self.events.send(Event::Bookmark(WatchBookmark { snapshot_complete: true }));
    }
}

fn tunnel(endpoint: &str, session: &str) -> Tunnel {
    Tunnel { endpoint: endpoint.to_owned(), session_id: session.to_owned(), ..Tunnel::default() }
}

fn message(event: Event) -> WatchTunnelsResponse {
    WatchTunnelsResponse { revision: 1, event: Some(event) }
}

#[async_trait]
impl TunnelService for Broker {
    type WatchTunnelsStream =
        Pin<Box<dyn Stream<Item = Result<WatchTunnelsResponse, Status>> + Send>>;

    async fn get_tunnel(
        &self,
        _: Request<GetTunnelRequest>,
    ) -> Result<Response<GetTunnelResponse>, Status> {
        Err(Status::permission_denied("the registry watches"))
    }

    async fn close_tunnel(
        &self,
        _: Request<CloseTunnelRequest>,
    ) -> Result<Response<CloseTunnelResponse>, Status> {
        Err(Status::permission_denied("the registry watches"))
    }

    async fn list_tunnels(
        &self,
        _: Request<ListTunnelsRequest>,
    ) -> Result<Response<ListTunnelsResponse>, Status> {
        Err(Status::permission_denied("the registry watches"))
    }

    async fn watch_tunnels(
        &self,
        _: Request<WatchTunnelsRequest>,
    ) -> Result<Response<Self::WatchTunnelsStream>, Status> {
        let attached = self.attached.lock();
        let events = BroadcastStream::new(self.events.subscribe());
        let mut first: Vec<_> = attached
            .iter()
            .map(|(session, endpoint)| Ok(message(Event::Attached(tunnel(endpoint, session)))))
            .collect();
        drop(attached);
        let complete = WatchBookmark { snapshot_complete: true };
        first.push(Ok(message(Event::Bookmark(complete))));
        // A second "complete" is this test's word for "the broker is gone".
        let rest = events
            .map(|event| event.unwrap())
            .take_while(|event| {
                let gone = matches!(event, Event::Bookmark(_));
                async move { !gone }
            })
            .map(|event| Ok(message(event)));
        Ok(Response::new(Box::pin(stream::iter(first).chain(rest))))
    }
}

struct NoKeys;

#[async_trait]
impl Authority for NoKeys {
    async fn api_key(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::ApiKeyInvalid, "no keys here"))
    }

    async fn sandbox_token(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::SandboxTokenInvalid, "no tokens here"))
    }
}

//! Streams end with the credential that they were opened with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wolfpack_proto::registry::v1::WatchWolvesRequest;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::wolf_service_server::WolfServiceServer;
use wolfpack_rpc::auth::{Standing, Standings};
use wolfpack_rpc::{
    Allow, Authority, ListenConfig, PeerConfig, PolicyRow, Profile, RpcChannel, RpcKind, Server,
    from_status,
};
use wolfpack_runtime::Context;
use wolfpack_types::{
    ApiKeyId, ExecutionId, Fault, Principal, ProjectId, Reason, Role, SandboxId, UserId,
};

use crate::world::{ANY, Probe, Wolves, eventually, reason, secret};

const POLICY: &[PolicyRow] = &[PolicyRow {
    method: "/wolfpack.registry.v1.WolfService/WatchWolves",
    allow: Allow { users: Some(Role::Viewer), sandboxes: true, ..Allow::NOBODY },
    kind: RpcKind::Stream,
}];
const SOON: Duration = Duration::from_secs(5);

/// Keys are their ids, tokens are `sandbox.boot.`.
#[derive(Default)]
struct Revocable {
    standings: Arc<Standings>,
    asked: AtomicUsize,
}

#[async_trait]
impl Authority for Revocable {
    async fn api_key(&self, key: &str) -> Result<Principal, Fault> {
        Ok(Principal::User {
            user: UserId::new(),
            key: ApiKeyId::parse(&key[3..])?,
            project: ProjectId::new(),
            role: Role::Developer,
            platform_admin: false,
            expires: None,
        })
    }

    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault> {
        let mut parts = token.split('.');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Principal::Sandbox {
            sandbox: SandboxId::parse(part())?,
            execution: ExecutionId::parse(part())?,
            project: ProjectId::new(),
        })
    }

    fn standing(&self, principal: &Principal) -> Option<Standing> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.standings.hold(principal)
    }
}

struct Place {
    context: Context,
    address: SocketAddr,
    authority: Arc<Revocable>,
    probe: Probe,
}

impl Place {
    async fn new() -> Self {
        let (context, authority) = (Context::quiet("registry"), Arc::new(Revocable::default()));
        let listener = ListenConfig::plain(ANY).bind().await.unwrap();
        let (address, wolves) = (listener.local_addr(), Wolves::default());
        let probe = wolves.probe.clone();
        let server = Server::builder(&context, POLICY, authority.clone())
            .add_service(WolfServiceServer::new(wolves))
            .listen(listener, Profile::internal())
            .build();
        tokio::spawn(server.serve());
        Self { context, address, authority, probe }
    }

    fn client(&self, bearer: &str) -> WolfServiceClient<RpcChannel> {
        let peer = PeerConfig::at(format!("http://{}", self.address));
        let channel = RpcChannel::to_service(&peer, "registry", None).unwrap();
        WolfServiceClient::new(channel.with_bearer(secret(bearer)).without_deadline())
    }

    async fn stop(self) {
        eventually(|| self.probe.running(), |running| *running == 0).await;
        let report = self.context.supervisor.shutdown(SOON).await;
        assert!(report.aborted.is_empty(), "{report:?}");
    }
}

/// The reason that a watch ends with.
async fn end(mut events: tonic::Streaming<impl std::fmt::Debug>) -> Reason {
    let ends = async {
        loop {
            match events.message().await {
                Ok(event) => assert!(event.is_some(), "ended without a status"),
                Err(status) => return from_status(&status).reason,
            }
        }
    };
    timeout(SOON, ends).await.expect("still open")
}

#[tokio::test]
async fn a_revoked_key_ends_its_open_streams_and_no_others() {
    let place = Place::new().await;
    let all = WatchWolvesRequest::default();
    let mut other = place.client("wp_other").watch_wolves(all).await.unwrap().into_inner();
    let open = place.client("wp_good").watch_wolves(all).await.unwrap().into_inner();
    let mut silent = place.client("wp_good");
    // One that has not been answered yet.
    let silent = tokio::spawn(async move {
        silent.watch_wolves(WatchWolvesRequest { resume_revision: 77 }).await.map(drop)
    });
    eventually(|| place.probe.running(), |running| *running == 3).await;
    place.authority.standings.end_key(&ApiKeyId::parse("good").unwrap());
    assert_eq!(end(open).await, Reason::ApiKeyInvalid);
    let silent = timeout(SOON, silent).await.expect("still open").unwrap();
    assert_eq!(reason(silent), Reason::ApiKeyInvalid);
    assert!(other.message().await.unwrap().is_some());
    assert_eq!(place.probe.running(), 1);
    drop(other);
    place.stop().await;
}

#[tokio::test]
async fn a_revoked_boot_ends_its_open_streams_and_the_next_boot_has_its_own() {
    let place = Place::new().await;
    let (sandbox, boot) = (SandboxId::new(), ExecutionId::new());
    let watch = |boot: &ExecutionId| {
        let mut client = place.client(&format!("{sandbox}.{boot}.x"));
        async move { client.watch_wolves(WatchWolvesRequest::default()).await.unwrap().into_inner() }
    };
    let (old, mut new) = (watch(&boot).await, watch(&ExecutionId::new()).await);
    place.authority.standings.end_sandbox(&sandbox, Some(&boot));
    assert_eq!(end(old).await, Reason::SandboxTokenRevoked);
    assert!(new.message().await.unwrap().is_some());
    place.authority.standings.end_sandbox(&sandbox, None);
    assert_eq!(end(new).await, Reason::SandboxTokenRevoked);
    assert_eq!(place.authority.asked.load(Ordering::SeqCst), 2, "once for each stream");
    place.stop().await;
}

/// HTTP/2 polls a response only when its peer has room for more.
#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_stream_too() {
    let place = Place::new().await;
    let socket = TcpStream::connect(place.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (sender, connection) =
        builder.initial_window_size(0).handshake::<_, bytes::Bytes>(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://h/wolfpack.registry.v1.WolfService/WatchWolves")
        .header("content-type", "application/grpc")
        .header("authorization", "Bearer wp_good")
        .body(())
        .unwrap();
    let mut sender = sender.ready().await.unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(place.probe.running(), 1);
    place.authority.standings.end_key(&ApiKeyId::parse("good").unwrap());
    eventually(|| place.probe.running(), |running| *running == 0).await;
    drop((response, sender));
    connection.abort();
    place.stop().await;
}

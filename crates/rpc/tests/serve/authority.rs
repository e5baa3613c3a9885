//! The authority of every service but the registry, against a registry that
//! can be told what to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures::{FutureExt as _, StreamExt as _};
use jsonwebtoken::EncodingKey;
use parking_lot::Mutex;
use ring::signature::KeyPair as _;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use wolfpack_proto::registry::v1::watch_revocations_response::Event;
use wolfpack_proto::registry::v1::*;
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::{
    Allow, Authority, ListenConfig, PeerConfig, PolicyRow, Profile, RemoteAuthority, RpcChannel,
    RpcKind, SandboxClaims, Server, to_status,
};
use wolfpack_runtime::Context;
use wolfpack_types::{
    ApiKeyId, ExecutionId, Fault, Principal, ProjectId, Reason, SandboxId, UserId,
};

use crate::world::{ANY, Keys, eventually};

const IDENTITY: &str = "/wolfpack.registry.v1.IdentityService/";
const POLICY: &[PolicyRow] = &[
    row("/wolfpack.registry.v1.IdentityService/Introspect", RpcKind::Unary),
    row("/wolfpack.registry.v1.IdentityService/GetSigningKeys", RpcKind::Unary),
    row("/wolfpack.registry.v1.IdentityService/WatchRevocations", RpcKind::Stream),
];

const fn row(method: &'static str, kind: RpcKind) -> PolicyRow {
    PolicyRow { method, allow: Allow::ANYONE, kind }
}

struct State {
    key: ApiKeyId,
    revoked: Mutex<Vec<Event>>,
    events: broadcast::Sender<Event>,
    role: Mutex<Role>,
    introspections: AtomicUsize,
    key_fetches: AtomicUsize,
    public_key: Vec<u8>,
    private_key: EncodingKey,
}

impl State {
    fn new() -> Arc<Self> {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        Arc::new(Self {
            key: ApiKeyId::new(),
            revoked: Mutex::default(),
            events: broadcast::channel(16).0,
            role: Mutex::new(Role::Developer),
            introspections: AtomicUsize::default(),
            key_fetches: AtomicUsize::default(),
            public_key: pair.public_key().as_ref().to_vec(),
            private_key: EncodingKey::from_ed_der(pkcs8.as_ref()),
        })
    }

    fn revoke(&self, event: Event) {
        self.revoked.lock().push(event.clone());
        let _ = self.events.send(event);
    }

    fn introspect(&self, request: &IntrospectRequest) -> Result<IntrospectResponse, Status> {
        self.introspections.fetch_add(1, Ordering::SeqCst);
        if request.key != "wp_good" {
            return Err(to_status(Fault::new(Reason::ApiKeyInvalid, "unknown; make a new one")));
        }
        Ok(IntrospectResponse {
            api_key: self.key.name(),
            user: UserId::new().name(),
            project: ProjectId::new().name(),
            role: (*self.role.lock()).into(),
            platform_admin: false,
            expire_time: None,
        })
    }
}

/// The three rpcs, by hand: the trait has many more.
macro_rules! method {
    ($state:expr, $service:ident, $grpc:ident, $request:ty, $response:ty, $stream:ty, |$s:ident, $message:ident| $body:expr) => {{
        #[derive(Clone)]
        struct Method(Arc<State>);
        impl tonic::server::$service<$request> for Method {
            type Response = $response;
            type Future =
                std::pin::Pin<Box<dyn Future<Output = Result<Response<$stream>, Status>> + Send>>;
            fn call(&mut self, request: Request<$request>) -> Self::Future {
                let $s = Arc::clone(&self.0);
                Box::pin(async move {
                    let $message = request.into_inner();
                    $body.map(Response::new)
                })
            }
        }

        let state = Arc::clone(&$state);
        tower::service_fn(move |request: http::Request<Body>| {
            let method = Method(Arc::clone(&state));
            async move {
                let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
                Ok::<_, std::convert::Infallible>(grpc.$grpc(method, request).await)
            }
        })
    }};
}

type Revocations =
    std::pin::Pin<Box<dyn futures::Stream<Item = Result<WatchRevocationsResponse, Status>> + Send>>;

struct Watch(Arc<State>);

impl tonic::server::ServerStreamingService<WatchRevocationsRequest> for Watch {
    type Response = WatchRevocationsResponse;
    type ResponseStream = Revocations;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Response<Revocations>, Status>> + Send>>;
    fn call(&mut self, _: Request<WatchRevocationsRequest>) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let live = BroadcastStream::new(state.events.subscribe()).map(|event| event.unwrap());
            let mut first = state.revoked.lock().clone();
            first.push(Event::Bookmark(WatchBookmark::default()));
            let events = futures::stream::iter(first).chain(live);
            let answers: Revocations = Box::pin(
                events
                    .map(|event| Ok(WatchRevocationsResponse { revision: 1, event: Some(event) })),
            );
            Ok(Response::new(answers))
        })
    }
}

async fn registry(state: &Arc<State>, context: &Context) -> RpcChannel {
    let listener = ListenConfig::plain(ANY).bind().await.unwrap();
    let url = format!("http://{}", listener.local_addr());
    let introspect = method!(
        state,
        UnaryService,
        unary,
        IntrospectRequest,
        IntrospectResponse,
        IntrospectResponse,
        |state, message| state.introspect(&message)
    );
    let keys = method!(
        state,
        UnaryService,
        unary,
        GetSigningKeysRequest,
        GetSigningKeysResponse,
        GetSigningKeysResponse,
        |state, _message| {
            state.key_fetches.fetch_add(1, Ordering::SeqCst);
            let key =
                SigningKey { key_id: "k1".into(), public_key: state.public_key.clone().into() };
            Ok(GetSigningKeysResponse { keys: vec![key] })
        }
    );
    let watched = Arc::clone(state);
    let watch = tower::service_fn(move |request: http::Request<Body>| {
        let method = Watch(Arc::clone(&watched));
        async move {
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::<
                WatchRevocationsResponse,
                WatchRevocationsRequest,
            >::default());
            Ok::<_, std::convert::Infallible>(grpc.server_streaming(method, request).await)
        }
    });
    assert!(POLICY.iter().all(|row| row.method.starts_with(IDENTITY)));
    let server = Server::builder(context, POLICY, Arc::new(Keys))
        .add_raw(POLICY[0].method, introspect)
        .add_raw(POLICY[1].method, keys)
        .add_raw(POLICY[2].method, watch)
        .listen(listener, Profile::internal())
        .build();
    tokio::spawn(server.serve());
    RpcChannel::to_service(&PeerConfig::at(url), "registry", None).unwrap()
}

async fn key(authority: &RemoteAuthority, key: &str) -> Result<&'static str, Reason> {
    authority.api_key(key).await.map(|principal| principal.kind()).map_err(|fault| fault.reason)
}

#[tokio::test]
async fn a_lower_role_counts_at_once_and_a_higher_one_is_asked_for_once() {
    let (state, context) = (State::new(), Context::quiet("scheduler"));
    let authority = RemoteAuthority::new(registry(&state, &context).await, &context);
    let known = authority.api_key("wp_good").await.unwrap();
    let open = authority.standing(&known).unwrap();
    let change = |role: Role| {
        state.revoke(Event::Role(ChangedRole { api_key: state.key.name(), role: role.into() }));
    };
    // Another replica, which has not heard of it, would go on saying what it knew.
    change(Role::Viewer);
    let soon = Duration::from_secs(3);
    let fault = tokio::time::timeout(soon, open.revoked()).await.expect("streams hear of it");
    assert_eq!(fault.reason, Reason::RoleTooLow);
    for _ in 0..3 {
        let now = authority.api_key("wp_good").await.unwrap();
        assert_eq!(now.role(), Some(wolfpack_types::Role::Viewer));
        assert!(authority.standing(&now).unwrap().revoked().now_or_never().is_none());
    }
    assert_eq!(state.introspections.load(Ordering::SeqCst), 1);
    *state.role.lock() = Role::Admin;
    change(Role::Admin);
    let raised = async {
        while authority.api_key("wp_good").await.unwrap().role()
            != Some(wolfpack_types::Role::Admin)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(soon, raised).await.expect("long before it would be asked for again");
    assert_eq!(state.introspections.load(Ordering::SeqCst), 2);
    change(Role::Viewer);
    eventually(
        || authority.standing(&known).unwrap().revoked().now_or_never().is_some(),
        |ended| *ended,
    )
    .await;
    // One that was authenticated just before.
    let late = authority.standing(&known).unwrap().revoked().now_or_never();
    assert_eq!(late.map(|fault| fault.reason), Some(Reason::RoleTooLow));
    context.supervisor.token().cancel();
}

#[tokio::test]
async fn keys_are_remembered_and_revocations_come_at_once() {
    let (state, context) = (State::new(), Context::quiet("scheduler"));
    let authority = RemoteAuthority::new(registry(&state, &context).await, &context);
    let asked = || state.introspections.load(Ordering::SeqCst);
    let together = futures::future::join_all((0..20).map(|_| key(&authority, "wp_good"))).await;
    assert!(together.iter().all(|answer| *answer == Ok("user")), "{together:?}");
    assert_eq!(asked(), 1, "twenty callers at once, one question");
    assert_eq!(key(&authority, "wp_bad").await, Err(Reason::ApiKeyInvalid));
    assert_eq!(key(&authority, "wp_bad").await, Err(Reason::ApiKeyInvalid));
    assert_eq!(asked(), 2, "a wrong key is remembered too");
    let user = authority.api_key("wp_good").await.unwrap();
    let open = authority.standing(&user).unwrap();
    assert!(open.revoked().now_or_never().is_none());
    // Long before the ten seconds of a remembered answer are over.
    state.revoke(Event::ApiKey(state.key.name()));
    let end = std::time::Instant::now() + Duration::from_secs(3);
    while key(&authority, "wp_good").await.is_ok() {
        assert!(std::time::Instant::now() < end, "not revoked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(asked(), 2);
    let soon = Duration::from_secs(3);
    let fault = tokio::time::timeout(soon, open.revoked()).await.expect("streams hear of it");
    assert_eq!(fault.reason, Reason::ApiKeyInvalid);
    // One that was authenticated just before hears of it too.
    let late = authority.standing(&user).unwrap().revoked().now_or_never();
    assert_eq!(late.map(|fault| fault.reason), Some(Reason::ApiKeyInvalid));
    context.supervisor.token().cancel();
}

#[tokio::test]
async fn a_registry_that_is_away_is_not_a_wrong_key() {
    let context = Context::quiet("scheduler");
    let nowhere =
        RpcChannel::to_service(&PeerConfig::at("http://127.0.0.1:1"), "registry", None).unwrap();
    let authority = RemoteAuthority::new(nowhere, &context);
    assert_eq!(key(&authority, "wp_good").await, Err(Reason::DependencyUnavailable));
    context.supervisor.token().cancel();
}

#[tokio::test]
async fn sandbox_tokens_are_verified_here_and_revoked_from_there() {
    let (state, context) = (State::new(), Context::quiet("tunnel-broker"));
    let authority = RemoteAuthority::new(registry(&state, &context).await, &context);
    let (sandbox, project, boot) = (SandboxId::new(), ProjectId::new(), ExecutionId::new());
    let token = |boot: &ExecutionId, key_id: &str, key: &EncodingKey| {
        SandboxClaims::new(&sandbox, &project, boot, SystemTime::now(), Duration::from_secs(600))
            .sign(key_id, key)
            .unwrap()
    };
    let good = token(&boot, "k1", &state.private_key);
    let wanted = Principal::Sandbox {
        sandbox: sandbox.clone(),
        project: project.clone(),
        execution: boot.clone(),
    };
    assert_eq!(authority.sandbox_token(&good).await.unwrap(), wanted);
    for _ in 0..50 {
        authority.sandbox_token(&good).await.unwrap();
    }
    let fetches = || state.key_fetches.load(Ordering::SeqCst);
    assert_eq!(fetches(), 1, "no call to the registry for each token");

    let reason = async |token: &str| authority.sandbox_token(token).await.unwrap_err().reason;
    let other = State::new();
    assert_eq!(reason(&token(&boot, "k1", &other.private_key)).await, Reason::SandboxTokenInvalid);
    for _ in 0..20 {
        assert_eq!(
            reason(&token(&boot, "k9", &other.private_key)).await,
            Reason::SandboxTokenInvalid
        );
    }
    assert!(fetches() <= 3, "made-up key ids do not flood the registry: {}", fetches());
    assert_eq!(reason("a.b.c").await, Reason::SandboxTokenInvalid);

    let next_boot = ExecutionId::new();
    let next = token(&next_boot, "k1", &state.private_key);
    state.revoke(Event::Sandbox(RevokedSandbox {
        sandbox: sandbox.name(),
        execution_id: boot.as_str().into(),
    }));
    let open = authority.standing(&wanted).unwrap();
    let mut last = Ok(wanted);
    for _ in 0..300 {
        last = authority.sandbox_token(&good).await;
        if last.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(last.unwrap_err().reason, Reason::SandboxTokenRevoked);
    assert_eq!(open.revoked().await.reason, Reason::SandboxTokenRevoked);
    assert!(authority.sandbox_token(&next).await.is_ok(), "another boot of the same sandbox");
    context.supervisor.token().cancel();
    eventually(|| context.supervisor.running(), |running| *running == 0).await;
}

//! The way out: by the one name in `/etc/hosts`, over TLS that is verified,
//! with the sandbox's token.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::http;
use tower::service_fn;
use wolfpack_proto::registry::v1::{RefreshSandboxTokenRequest, RefreshSandboxTokenResponse};
use wolfpack_proto::tunnel::v1::{AttachRequest, AttachResponse, attach_request};
use wolfpack_rpc::{
    Allow, Authority, Caller, ClientAuth, ClientTls, ListenConfig, PolicyRow, Profile, RpcKind,
    Server, TlsConfig, to_status,
};
use wolfpack_runtime::{Context, install_crypto_provider};
use wolfpack_sandbox_agent::boot::{BootDir, Token};
use wolfpack_sandbox_agent::docker::Docker;
use wolfpack_sandbox_agent::exec::Execs;
use wolfpack_sandbox_agent::init::{Adopts, Reaper};
use wolfpack_sandbox_agent::process::{Console, Launcher};
use wolfpack_sandbox_agent::resolve::Resolver;
use wolfpack_sandbox_agent::service::SandboxAgent;
use wolfpack_sandbox_agent::tunnel::{Issuer as _, Registry, Uplink, keep_attached};
use wolfpack_types::sandbox_boot::SandboxBoot;
use wolfpack_types::{ExecutionId, Fault, PortSet, Principal, ProjectId, Reason, SandboxId};

const SANDBOXES: Allow = Allow { sandboxes: true, ..Allow::NOBODY };
const REFRESH: &str = "/wolfpack.registry.v1.IdentityService/RefreshSandboxToken";
const ATTACH: &str = "/wolfpack.tunnel.v1.AgentTunnelService/Attach";
const POLICY: &[PolicyRow] = &[
    PolicyRow { method: REFRESH, allow: SANDBOXES, kind: RpcKind::Unary },
    PolicyRow { method: ATTACH, allow: SANDBOXES, kind: RpcKind::Stream },
];

type Nothing = tokio_stream::Empty<Result<AttachResponse, tonic::Status>>;

fn token(mark: &str) -> Token {
    let claims = format!(r#"{{"sub":"sandboxes/{mark}","iat":1,"exp":4000000000}}"#);
    Token::parse(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))).unwrap()
}

/// Knows one token.
struct Knows(Token);

#[async_trait]
impl Authority for Knows {
    async fn api_key(&self, _key: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::ApiKeyInvalid, "no keys here"))
    }

    async fn sandbox_token(&self, token: &str) -> Result<Principal, Fault> {
        if token != self.0.secret().expose_secret() {
            return Err(Fault::new(Reason::SandboxTokenInvalid, "another token"));
        }
        Ok(Principal::Sandbox {
            sandbox: SandboxId::parse("s").unwrap(),
            project: ProjectId::parse("p").unwrap(),
            execution: ExecutionId::parse("e").unwrap(),
        })
    }
}

/// A CA and what it signs for `service`; the host's name is nobody's.
fn certificates(folder: &Path, service: &str) -> TlsConfig {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(vec!["somewhere.else".to_owned()]).unwrap();
    let id = wolfpack_types::spiffe::service(service);
    leaf.subject_alt_names.push(SanType::URI(id.as_str().try_into().unwrap()));
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &root).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    TlsConfig {
        certificate_file: write("tls.crt", &leaf.pem()),
        key_file: write("tls.key", &key.serialize_pem()),
        roots_file: write("ca.crt", &root.pem()),
    }
}

/// A server that is `service`, knows the token `old` and gives out `new`.
struct World {
    folder: tempfile::TempDir,
    context: Context,
    url: String,
    /// Who attached, and what it offers.
    attached: mpsc::Receiver<(Principal, Vec<String>)>,
}

async fn world(service: &str) -> World {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates(folder.path(), service);
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    std::fs::write(folder.path().join("etc/hosts"), "127.0.0.1 wolfpack.internal\n").unwrap();
    let context = Context::quiet("gateway");
    let address = "127.0.0.1:0".parse().unwrap();
    let listen = ListenConfig { address, tls: Some(tls), client_auth: ClientAuth::Off };
    let listener = listen.bind().await.unwrap();
    let url = format!("https://wolfpack.internal:{}", listener.local_addr().port());
    let refresh = service_fn(|request: http::Request<Body>| async move {
        type Codec =
            tonic_prost::ProstCodec<RefreshSandboxTokenResponse, RefreshSandboxTokenRequest>;
        let answer = service_fn(|_: tonic::Request<RefreshSandboxTokenRequest>| async {
            let token = token("new").secret().expose_secret().to_owned();
            Ok::<_, tonic::Status>(tonic::Response::new(RefreshSandboxTokenResponse {
                token,
                expire_time: None,
            }))
        });
        Ok::<_, Infallible>(tonic::server::Grpc::new(Codec::default()).unary(answer, request).await)
    });
    let (seen, attached) = mpsc::channel(16);
    let attach = service_fn(move |request: http::Request<Body>| {
        type Codec = tonic_prost::ProstCodec<AttachResponse, AttachRequest>;
        let seen = seen.clone();
        let caller = request.extensions().get::<Caller>().unwrap().principal.clone();
        let answer = service_fn(move |hello: tonic::Request<tonic::Streaming<AttachRequest>>| {
            let (seen, caller) = (seen.clone(), caller.clone());
            async move {
                let first = hello.into_inner().message().await?.and_then(|first| first.message);
                if let Some(attach_request::Message::Hello(hello)) = first {
                    let _ = seen.try_send((caller, hello.targets));
                }
                let draining = Fault::new(Reason::BrokerDraining, "this is only a test");
                Err::<tonic::Response<Nothing>, _>(to_status(draining))
            }
        });
        async move {
            let mut server = tonic::server::Grpc::new(Codec::default());
            Ok::<_, Infallible>(server.streaming(answer, request).await)
        }
    });
    let server = Server::builder(&context, POLICY, Arc::new(Knows(token("old"))))
        .add_raw(REFRESH, refresh)
        .add_raw(ATTACH, attach)
        .listen(listener, Profile::agent())
        .build();
    context.supervisor.spawn_essential("server", server.serve());
    World { folder, context, url, attached }
}

impl World {
    fn uplink(&self, token: &Token) -> Uplink {
        let tls = ClientTls::roots_only(&std::fs::read(self.folder.path().join("ca.crt")).unwrap())
            .unwrap();
        Uplink::new(
            Resolver::under(self.folder.path()),
            tls,
            BootDir::at(self.folder.path()),
            token,
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_at_the_gateway() {
    let world = world("gateway").await;
    let fresh =
        Registry::new(world.uplink(&token("old")), world.url.clone()).fresh().await.unwrap();
    assert!(fresh == token("new"));
    let stranger = Registry::new(world.uplink(&token("forged")), world.url.clone());
    assert_eq!(stranger.fresh().await.unwrap_err().reason, Reason::SandboxTokenInvalid);
    let nowhere = Registry::new(world.uplink(&token("old")), "https://127.0.0.1:9".to_owned());
    assert_eq!(nowhere.fresh().await.unwrap_err().reason, Reason::DependencyUnavailable);
}

/// Neither another CA nor another of our services gets to see the token.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_shown_to_the_gateway_only() {
    let gateway = world("gateway").await;
    let forged = world("gateway").await;
    let to_forged = Registry::new(gateway.uplink(&token("old")), forged.url.clone());
    assert_eq!(to_forged.fresh().await.unwrap_err().reason, Reason::DependencyUnavailable);
    let scheduler = world("scheduler").await;
    let to_scheduler = Registry::new(scheduler.uplink(&token("old")), scheduler.url.clone());
    assert_eq!(to_scheduler.fresh().await.unwrap_err().reason, Reason::DependencyUnavailable);
}

fn agent(world: &World, tcp_ports: PortSet) -> SandboxAgent {
    let boot = Arc::new(SandboxBoot {
        sandbox: SandboxId::parse("s").unwrap(),
        project: ProjectId::parse("p").unwrap(),
        execution: ExecutionId::parse("e").unwrap(),
        argv: Vec::new(),
        user: String::new(),
        env: BTreeMap::new(),
        cwd: "/".to_owned(),
        desktop: false,
        broker: world.url.clone(),
        gateway: world.url.clone(),
        socket_uid: 0,
        docker: wolfpack_types::DockerMode::None,
        nested: None,
        otlp_endpoint: None,
        tcp_ports,
    });
    let console = Arc::new(Console::keep().unwrap());
    let launcher = Launcher::new(Reaper::new(Adopts::Nothing), "/nonexistent".into(), console);
    let execs = Execs::new(launcher, Arc::clone(&boot), BTreeMap::new(), "/".into());
    SandboxAgent::new(boot, execs, None, Docker::None, world.context.supervisor.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_attaches_at_the_broker_as_the_sandbox_again_and_again() {
    let mut world = world("tunnel-broker").await;
    let supervisor = world.context.supervisor.child();
    let attaching = keep_attached(
        world.uplink(&token("old")),
        world.url.clone(),
        SandboxId::parse("s").unwrap(),
        agent(&world, PortSet::all()),
        supervisor.clone(),
    );
    supervisor.spawn("tunnel", attaching);
    for _ in 0..2 {
        let seen = tokio::time::timeout(Duration::from_secs(20), world.attached.recv()).await;
        let (principal, offers) = seen.expect("it attaches").unwrap();
        assert_eq!(offers, ["agent", "tcp:*"]);
        assert!(matches!(principal, Principal::Sandbox { sandbox, .. } if sandbox.as_str() == "s"));
    }
    let report = supervisor.shutdown(Duration::from_secs(5)).await;
    assert_eq!(report.aborted.len(), 0, "{report:?}");
}

/// A boot that allows no port offers none.
#[tokio::test(flavor = "multi_thread")]
async fn ports_are_offered_as_the_boot_says() {
    let mut world = world("tunnel-broker").await;
    let supervisor = world.context.supervisor.child();
    let attaching = keep_attached(
        world.uplink(&token("old")),
        world.url.clone(),
        SandboxId::parse("s").unwrap(),
        agent(&world, PortSet::default()),
        supervisor.clone(),
    );
    supervisor.spawn("tunnel", attaching);
    let seen = tokio::time::timeout(Duration::from_secs(20), world.attached.recv()).await;
    assert_eq!(seen.expect("it attaches").unwrap().1, ["agent"]);
    supervisor.shutdown(Duration::from_secs(5)).await;
}

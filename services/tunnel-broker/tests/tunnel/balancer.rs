//! A balancer that ends HTTP/2 itself and spreads its streams over brokers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::body::Body;
use tower::{Service as _, service_fn};
use wolfpack_rpc::{
    Allow, ClientAuth, ClientTls, Forward, ListenConfig, PolicyRow, Profile, RpcKind, Server,
};
use wolfpack_runtime::Context;
use wolfpack_tunnel::grpc::{ATTACH_PATH, CARRY_PATH};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, ProjectId, SandboxId};

use crate::support::{Bearers, Fleet, SOON, attached, channel, echo, eventually, target};

const SANDBOXES: Allow = Allow { sandboxes: true, ..Allow::NOBODY };
const POLICY: &[PolicyRow] = &[
    PolicyRow { method: ATTACH_PATH, allow: SANDBOXES, kind: RpcKind::Stream },
    PolicyRow { method: CARRY_PATH, allow: SANDBOXES, kind: RpcKind::Stream },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_land_at_another_broker_cost_neither_the_session_nor_a_dial() {
    let fleet = Fleet::start().await;
    let other = Fleet::run(fleet.elsewhere()).await;
    let roots = ClientTls::roots_only(fleet.ca.pem().as_bytes()).unwrap();
    let to = |at| Forward::to(&channel(at, &roots));
    let (here, there) = (to(fleet.running.addresses.agents), to(other.addresses.agents));

    // Control streams go to one broker, every other Carry, or all, to the other.
    let (attaches, carries) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let all_astray = Arc::<AtomicBool>::default();
    let (counted, home) = (attaches.clone(), here.clone());
    let attach = service_fn(move |request: http::Request<Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut home = home.clone();
        async move { Ok::<_, Infallible>(home.call(request).await.unwrap_or_else(|e| match e {})) }
    });
    let astray = all_astray.clone();
    let carry = service_fn(move |request: http::Request<Body>| {
        let odd = carries.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        let away = odd || astray.load(Ordering::SeqCst);
        let mut to = if away { there.clone() } else { here.clone() };
        async move { Ok::<_, Infallible>(to.call(request).await.unwrap_or_else(|e| match e {})) }
    });
    let balancer = Context::quiet("balancer");
    let listener = ListenConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: Some(fleet.ca.service(fleet.folder.path(), "tunnel-broker")),
        client_auth: ClientAuth::Optional,
    };
    let listener = listener.bind().await.unwrap();
    let address = listener.local_addr();
    let server = Server::builder(&balancer, POLICY, Arc::new(Bearers::default()))
        .add_raw(ATTACH_PATH, attach)
        .add_raw(CARRY_PATH, carry)
        .listen(listener, Profile::agent())
        .build();
    balancer.supervisor.spawn_essential("balancer", server.serve());

    let (sandbox, project) = (SandboxId::new(), ProjectId::new());
    let endpoint = Endpoint::Sandbox(sandbox.clone());
    let token = format!("sandbox.{sandbox}.{project}");
    let bearer = secrecy::SecretString::from(token);
    let config = AgentTunnelConfig::new(endpoint.clone(), "test");
    let mut builder = AgentTunnel::builder(config, channel(address, &roots).with_bearer(bearer));
    builder.dial_target("port", Arc::new(crate::support::Tcp(echo().await)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let session = fleet.running.broker.find(&endpoint).unwrap();

    let dialer = fleet.dialer();
    for at in 0..40_u32 {
        let mut stream = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
        stream.write_u32(at).await.unwrap();
        assert_eq!(stream.read_u32().await.unwrap(), at);
    }
    let present = fleet.running.broker.find(&endpoint).unwrap();
    assert!(Arc::ptr_eq(&session, &present), "one session for all of them");
    assert_eq!(attaches.load(Ordering::SeqCst), 1);
    assert_eq!(other.broker.counts(), [0; 4], "the other broker took nothing in");

    // With no way left the session is given up, and then not in a tight loop.
    all_astray.store(true, Ordering::SeqCst);
    let port = target("port");
    for _ in 0..20 {
        let _ = dialer.dial(&endpoint, &port, Duration::from_millis(50)).await;
    }
    eventually(|| session.closed().is_cancelled(), || "the session is given up".into()).await;
    let before = attaches.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let more = attaches.load(Ordering::SeqCst) - before;
    assert!(more <= 8, "{more} attaches in two seconds");

    // And it comes back by itself.
    all_astray.store(false, Ordering::SeqCst);
    let mut stream = dialer.dial(&endpoint, &target("port"), 3 * SOON).await.unwrap();
    stream.write_all(b"back").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    balancer.supervisor.token().cancel();
    other.stop().await;
}

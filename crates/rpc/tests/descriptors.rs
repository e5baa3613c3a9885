//! A process without a free file descriptor. Alone in its binary: it lowers the
//! limit of the whole process.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use wolfpack_rpc::{Authority, ListenConfig, PeerConfig, Profile, RpcChannel, Server};
use wolfpack_runtime::Context;
use wolfpack_types::{Fault, Principal, Reason};

struct Nobody;

#[async_trait]
impl Authority for Nobody {
    async fn api_key(&self, _key: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::ApiKeyInvalid, "unknown"))
    }
    async fn sandbox_token(&self, _token: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::SandboxTokenInvalid, "unknown"))
    }
}

#[tokio::test]
async fn accepting_backs_off_and_goes_on_when_there_is_room() {
    let context = Context::quiet("registry");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = ListenConfig::plain(any).bind().await.unwrap();
    let address = listener.local_addr();
    let mut profile = Profile::internal();
    profile.first_byte_deadline = Duration::from_secs(60);
    let server = Server::builder(&context, &[], Arc::new(Nobody)).listen(listener, profile).build();
    let health = server.health();
    let served = tokio::spawn(server.serve());
    health.serving().await;

    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: limit.maximum }).unwrap();
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect(address).await {
        clients.push(client);
        assert!(clients.len() < 64, "the limit does not hold");
        tokio::task::yield_now().await;
    }
    let failures = || -> u64 {
        let metrics = context.telemetry.prometheus();
        let line = metrics.lines().find(|line| {
            line.starts_with("rpc_server_connections_refused_total") && line.contains("\"accept\"")
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    };
    // Leaves the last client waiting in the backlog, which wakes the accept at once, always.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = failures();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let during = failures() - before;
    assert!(before > 0, "accepts never failed");
    assert!(
        (1..=20).contains(&during),
        "{during} attempts in one second: not backed off by 100 ms"
    );

    drop(clients);
    setrlimit(Resource::Nofile, limit).unwrap();
    let channel =
        RpcChannel::to_service(&PeerConfig::at(format!("http://{address}")), "registry", None);
    let answer = HealthClient::new(channel.unwrap()).check(HealthCheckRequest::default()).await;
    assert!(answer.is_ok(), "{answer:?}");
    context.supervisor.token().cancel();
    served.await.unwrap().unwrap();
}

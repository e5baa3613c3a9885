//! A broker that is a process of its own, and is killed.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use wolfpack_rpc::ClientTls;
use wolfpack_runtime::Context;
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, Dialer};
use wolfpack_types::{Endpoint, Fault, Reason, WolfId};

use crate::self_view::alone;
use crate::support::{Ca, Registry, SOON, Tcp, attached, channel, echo, target};

/// Everything but the broker is in this process.
struct Outside {
    folder: TempDir,
    ca: Ca,
    registry: Registry,
    agents: SocketAddr,
    internal: SocketAddr,
    context: Context,
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Outside {
    async fn new() -> Self {
        wolfpack_runtime::install_crypto_provider();
        let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        let registry = Registry::start(&ca, folder.path()).await;
        let (agents, internal) = (free_port(), free_port());
        Self { folder, ca, registry, agents, internal, context: Context::quiet("test") }
    }

    fn broker(&self) -> Child {
        let tls = self.ca.service(self.folder.path(), "tunnel-broker");
        let set = |key: &str| format!("WOLFPACK_TUNNEL_BROKER__{key}");
        Command::new(env!("CARGO_BIN_EXE_wolfpack-tunnel-broker"))
            .env(set("LISTEN"), self.internal.to_string())
            .env(set("AGENTS"), self.agents.to_string())
            .env(set("REGISTRY__ADDRESS"), format!("https://{}", self.registry.address))
            .env(set("TLS__CERTIFICATE_FILE"), tls.certificate_file)
            .env(set("TLS__KEY_FILE"), tls.key_file)
            .env(set("TLS__ROOTS_FILE"), tls.roots_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn dialer(&self) -> Dialer {
        let files = self.ca.service(self.folder.path(), "sandbox-manager");
        Dialer::new(channel(self.internal, &ClientTls::load(&files).unwrap()))
    }

    fn agent(&self, wolf: &WolfId, tcp: SocketAddr) -> AgentTunnel {
        let files = self.ca.wolf(self.folder.path(), wolf);
        let broker = channel(self.agents, &ClientTls::load(&files).unwrap());
        let config = AgentTunnelConfig::new(Endpoint::Wolf(wolf.clone()), "test");
        let mut builder = AgentTunnel::builder(config, broker);
        builder.dial_target("port", Arc::new(Tcp(tcp)));
        builder.start(&self.context.supervisor)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_under_a_hundred_transfers() {
    let _alone = alone().await;
    let outside = Outside::new().await;
    let mut broker = outside.broker();
    let wolf = WolfId::new();
    let agent = outside.agent(&wolf, echo().await);
    attached(&agent).await;
    let (dialer, endpoint) = (outside.dialer(), Endpoint::Wolf(wolf));

    let mut transfers = JoinSet::new();
    for _ in 0..100 {
        let mut stream = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
        transfers.spawn(async move {
            let chunk = [1; 4096];
            let mut back = [0; 4096];
            loop {
                if let Err(error) = stream.write_all(&chunk).await {
                    return error;
                }
                if let Err(error) = stream.read_exact(&mut back).await {
                    return error;
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(transfers.len(), 100);
    let killed = Instant::now();
    broker.kill().await.unwrap();
    while let Some(error) = transfers.join_next().await {
        let error = error.unwrap();
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
        let reason = fault.unwrap_or_else(|| panic!("no reason: {error:?}")).reason;
        let expected = [Reason::ConnectionReset, Reason::TunnelLost, Reason::DependencyUnavailable];
        assert!(expected.contains(&reason), "{reason}");
    }
    // At once: the kernel tells, nobody's patience has to end.
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    let mut seen = agent.attached();
    tokio::time::timeout(SOON, seen.wait_for(|there| !*there)).await.unwrap().unwrap();

    let _broker = outside.broker();
    let began = Instant::now();
    let mut stream = dialer_when_up(&outside, &endpoint).await;
    stream.write_all(b"back").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    // 5 s of back-off, and the start of a debug build on a busy machine.
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    assert_eq!(agent.pending_dials(), 0);
}

async fn dialer_when_up(outside: &Outside, endpoint: &Endpoint) -> wolfpack_tunnel::TunnelStream {
    let dialer = outside.dialer();
    let end = Instant::now() + SOON;
    loop {
        match dialer.dial(endpoint, &target("port"), SOON).await {
            Ok(stream) => return stream,
            Err(fault) if Instant::now() > end => panic!("{fault}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

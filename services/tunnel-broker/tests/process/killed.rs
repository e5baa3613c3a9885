//! A broker that is a process of its own, and is killed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use wolfpack_rpc::ClientTls;
use wolfpack_runtime::random::Jitter;
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, Fault, Reason, WolfId};

use crate::broker::Outside;
use crate::self_view::alone;
use crate::support::{SOON, Tcp, attached, channel, echo, target};

const AGENTS: u64 = 10;
/// How long a broker that is back may wait for its agents.
const BACK: Duration = Duration::from_secs(5);

/// An agent with the back-off of production, whose draws are those of `seed`.
fn agent(outside: &Outside, wolf: &WolfId, seed: u64, tcp: SocketAddr) -> AgentTunnel {
    let identity = outside.identity(wolf);
    let broker = channel(outside.agents, &ClientTls::load(&identity).unwrap());
    let mut config = AgentTunnelConfig::new(Endpoint::Wolf(wolf.clone()), "test");
    config.jitter = Jitter::seeded(seed);
    let mut builder = AgentTunnel::builder(config, broker);
    builder.dial_target("port", Arc::new(Tcp(tcp)));
    builder.start(&outside.context.supervisor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_under_a_hundred_transfers() {
    let _alone = alone().await;
    let outside = Outside::new().await;
    let mut broker = outside.broker();
    outside.listening().await;
    let tcp = echo().await;
    let wolves: Vec<WolfId> = (0..AGENTS).map(|_| WolfId::new()).collect();
    let agents: Vec<AgentTunnel> =
        wolves.iter().zip(0..).map(|(wolf, seed)| agent(&outside, wolf, seed, tcp)).collect();
    for agent in &agents {
        attached(agent).await;
    }
    let dialer = outside.dialer();

    let mut transfers = JoinSet::new();
    for wolf in wolves.iter().cycle().take(100) {
        let endpoint = Endpoint::Wolf(wolf.clone());
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
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    for agent in &agents {
        let mut seen = agent.attached();
        tokio::time::timeout(SOON, seen.wait_for(|there| !*there)).await.unwrap().unwrap();
    }

    let _broker = outside.broker();
    outside.listening().await;
    // An outage so short has taken no agent far into its back-off.
    let (outage, up) = (killed.elapsed(), Instant::now());
    for (agent, wolf) in agents.iter().zip(&wolves) {
        attached(agent).await;
        assert!(up.elapsed() <= BACK, "{:?} after an outage of {outage:?}", up.elapsed());
        let endpoint = Endpoint::Wolf(wolf.clone());
        let mut stream = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
        stream.write_all(b"back").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!(agent.pending_dials(), 0);
    }
}

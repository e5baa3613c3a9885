//! A broker that leaves while there is another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig, BrokerAt, Dialer};
use wolfpack_types::{Endpoint, WolfId};

use crate::support::{Fleet, SOON, Tcp, attached, echo, eventually, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_at_the_other_broker_before_any_of_a_hundred_connections_ends() {
    let fleet = Fleet::start().await;
    let stays = Fleet::run(fleet.elsewhere()).await;
    let mut config = fleet.elsewhere();
    config.drain = 3 * SOON;
    // The first one is in nobody's configuration: nobody must go there.
    let evil = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let evil_address = evil.local_addr().unwrap();
    config.drain_alternatives = vec![evil_address.to_string(), stays.addresses.agents.to_string()];
    let leaves = Fleet::run(config).await;

    let wolf = WolfId::new();
    let endpoint = Endpoint::Wolf(wolf.clone());
    let at = |address: std::net::SocketAddr| BrokerAt {
        address: address.to_string(),
        channel: fleet.wolf_channel(&wolf, address),
    };
    // The next of its own is not the one that is named.
    let others = vec![at(fleet.running.addresses.agents), at(stays.addresses.agents)];
    let config = AgentTunnelConfig::new(endpoint.clone(), "test");
    let mut builder = AgentTunnel::builder_of(config, at(leaves.addresses.agents), others);
    builder.dial_target("port", Arc::new(Tcp(echo().await)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    assert!(leaves.broker.find(&endpoint).is_some(), "at the first of its list");

    let dialer_at = |address| Dialer::new(fleet.service_channel_at("sandbox-manager", address));
    let old = dialer_at(leaves.addresses.internal);
    let finish = Arc::<AtomicBool>::default();
    let mut live = tokio::task::JoinSet::new();
    for at in 0..100_u32 {
        let mut stream = old.dial(&endpoint, &target("port"), SOON).await.unwrap();
        let finish = finish.clone();
        live.spawn(async move {
            let mut rounds = 0;
            loop {
                let last = finish.load(Ordering::SeqCst);
                stream.write_u32(at).await.expect("lives");
                assert_eq!(stream.read_u32().await.expect("lives"), at);
                rounds += 1;
                if last {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "a clean end");
            rounds
        });
    }
    let context = leaves.context.clone();
    let leaving = tokio::spawn(async move { context.supervisor.shutdown(4 * SOON).await });
    eventually(|| leaves.broker.not_draining().is_err(), || "it leaves".into()).await;

    // Every new dial is served, from the moment on that the old one takes none.
    let new = dialer_at(stays.addresses.internal);
    for at in 0..100_u32 {
        let mut stream = new.dial(&endpoint, &target("port"), SOON).await.unwrap();
        stream.write_u32(at).await.unwrap();
        assert_eq!(stream.read_u32().await.unwrap(), at);
    }
    assert!(*agent.attached().borrow());
    assert_eq!(leaves.broker.counts()[2], 100, "all of the old ones are there");
    assert!(fleet.running.broker.find(&endpoint).is_none(), "it went where it was told to");
    finish.store(true, Ordering::SeqCst);
    while let Some(rounds) = live.join_next().await {
        assert!(rounds.expect("none of them broke") > 1);
    }
    let report = leaving.await.unwrap();
    assert_eq!(report.aborted, Vec::<&str>::new());
    assert!(stays.broker.find(&endpoint).is_some(), "it stays where it is");
    let knock = tokio::time::timeout(Duration::from_millis(100), evil.accept()).await;
    assert!(knock.is_err(), "a broker does not send agents anywhere");
    stays.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_first_broker_is_not_there_takes_the_next() {
    let fleet = Fleet::start().await;
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let wolf = WolfId::new();
    let at = |address: std::net::SocketAddr| BrokerAt {
        address: address.to_string(),
        channel: fleet.wolf_channel(&wolf, address),
    };
    let config = AgentTunnelConfig::new(Endpoint::Wolf(wolf.clone()), "test");
    let others = vec![at(fleet.running.addresses.agents)];
    let agent =
        AgentTunnel::builder_of(config, at(closed), others).start(&fleet.context.supervisor);
    attached(&agent).await;
    assert!(fleet.running.broker.find(&Endpoint::Wolf(wolf)).is_some());
}

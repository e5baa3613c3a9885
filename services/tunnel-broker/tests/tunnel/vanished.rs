//! An agent that is there no more and never said so, with the heartbeat as it
//! is in production.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, Fault, Reason, WolfId};

use crate::support::{Fleet, Relay, SOON, Tcp, attached, echo, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_vanished_is_gone_in_twenty_seconds_and_its_dials_find_the_next() {
    let fleet = Fleet::start().await;
    let relay = Relay::start(fleet.running.addresses.agents).await;
    let wolf = WolfId::new();
    let endpoint = Endpoint::Wolf(wolf.clone());
    let config = AgentTunnelConfig::new(endpoint.clone(), "test");
    let mut builder = AgentTunnel::builder(config, fleet.wolf_channel(&wolf, relay.address));
    builder.dial_target("port", Arc::new(Tcp(echo().await)));
    let vanishes = builder.start(&fleet.context.supervisor);
    attached(&vanishes).await;
    let mut open = fleet.dial(&endpoint).await.unwrap();

    relay.pass(false, false);
    let began = Instant::now();
    // Into the dead session, as nobody knows yet: one that has no time to wait,
    // and ones that have, over the parked streams and over dials on demand.
    let (dialer, port) = (fleet.dialer(), target("port"));
    let fault = dialer.dial(&endpoint, &port, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(fault.reason, Reason::DialTimeout);
    let mut pending = tokio::task::JoinSet::new();
    for at in 0..8_u32 {
        let (dialer, endpoint) = (dialer.clone(), endpoint.clone());
        pending.spawn(async move {
            let opened = dialer.dial(&endpoint, &target("port"), 3 * SOON).await;
            let mut stream = opened.expect("tried again at once on the next session");
            stream.write_u32(at).await.unwrap();
            assert_eq!(stream.read_u32().await.unwrap(), at);
        });
    }
    let error = tokio::time::timeout(2 * SOON, open.read_u8()).await.unwrap().unwrap_err();
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).unwrap();
    assert_eq!(fault.reason, Reason::TunnelLost);
    fleet.counts([Some(0), Some(0), None, Some(8)]).await;
    assert!(began.elapsed() <= Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(pending.len(), 8, "they wait for it to come back");

    let mut back = fleet.wolf(&wolf);
    back.dial_target("port", Arc::new(Tcp(echo().await)));
    let back = back.start(&fleet.context.supervisor);
    attached(&back).await;
    while let Some(served) = pending.join_next().await {
        served.unwrap();
    }
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

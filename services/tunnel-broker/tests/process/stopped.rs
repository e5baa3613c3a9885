//! An agent that is a process of its own, and is stopped: its kernel goes on
//! taking what it is sent, and it says nothing.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use wolfpack_types::{Endpoint, Fault, Reason, WolfId};

use crate::agent::AgentProcess;
use crate::self_view::alone;
use crate::support::{Fleet, SOON, echo, eventually, target};

/// How long the routes may name an agent that is not there.
const GONE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_stopped_leaves_the_routes_and_comes_back_when_it_goes_on() {
    let _alone = alone().await;
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let identity = fleet.ca.wolf(fleet.folder.path(), &wolf);
    let agents = fleet.running.addresses.agents;
    let agent = AgentProcess::start(&wolf, &identity, agents, echo().await);
    let endpoint = Endpoint::Wolf(wolf);
    let mut open = fleet.dial(&endpoint).await.unwrap();
    open.write_all(b"lives").await.unwrap();
    open.read_exact(&mut [0; 5]).await.unwrap();
    let session = fleet.running.broker.find(&endpoint).unwrap();

    agent.signal(Signal::STOP);
    let began = Instant::now();
    // Some go into parked streams, some ask for new ones: both are with an agent
    // that does not answer. Half of them have the time to see it come back.
    let mut pending = JoinSet::new();
    for at in 0..24_u32 {
        let patience = if at % 2 == 0 { GONE } else { 4 * SOON };
        let (dialer, endpoint) = (fleet.dialer(), endpoint.clone());
        pending.spawn(async move {
            let opened = dialer.dial(&endpoint, &target("port"), patience).await;
            match opened {
                Err(fault) => {
                    assert_eq!(at % 2, 0, "{fault}");
                    fault.reason
                }
                Ok(mut stream) => {
                    assert_eq!(at % 2, 1, "nobody was there");
                    stream.write_u32(at).await.unwrap();
                    assert_eq!(stream.read_u32().await.unwrap(), at);
                    Reason::Cancelled
                }
            }
        });
    }
    // One whose own time is over first hears it in time.
    let short = Duration::from_secs(1);
    let fault = fleet.dialer().dial(&endpoint, &target("port"), short).await.unwrap_err();
    assert_eq!(fault.reason, Reason::DialTimeout, "{fault}");

    let error = tokio::time::timeout(2 * SOON, open.read_u8()).await.unwrap().unwrap_err();
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).expect("a fault");
    assert_eq!(fault.reason, Reason::TunnelLost);
    let gone = || fleet.running.broker.find(&endpoint).is_none();
    eventually(gone, || "it is among the routes".into()).await;
    assert!(began.elapsed() <= GONE, "{:?}", began.elapsed());
    assert_eq!(session.fault().expect("it ended").reason, Reason::TunnelLost);
    assert_eq!((session.pending(), session.parked()), (0, 0), "nothing waits in it");
    // Those that still have time wait for the next session, and no longer.
    let mut late = 0;
    while late < 12 {
        let reason = pending.join_next().await.unwrap().unwrap();
        assert_eq!(reason, Reason::DialTimeout);
        late += 1;
    }
    assert_eq!(pending.len(), 12);

    agent.signal(Signal::CONT);
    let began = Instant::now();
    while let Some(served) = pending.join_next().await {
        assert_eq!(served.unwrap(), Reason::Cancelled);
    }
    // It finds its session gone, and its first try finds the broker.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

//! Much work leaves nothing behind. The amounts are such that a debug build is
//! done in seconds; each names the variable that makes it larger.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_tunnel::AgentTunnel;
use wolfpack_types::{Endpoint, WolfId};

use crate::self_view::{alone, amount, files, resident_mib, tasks};
use crate::support::{Fleet, SOON, Tcp, attached, echo, eventually, source, target};

/// What a process holds when it is at rest, give or take what is pooled: the
/// parked streams, which grow with use, and memory that the allocator keeps.
struct Rest {
    files: usize,
    tasks: usize,
    mib: usize,
}

impl Rest {
    fn now() -> Self {
        Self { files: files(), tasks: tasks(), mib: resident_mib() }
    }

    /// Waits until no more is held than then. A pool may have 64 streams parked,
    /// each with a few tasks at both ends.
    async fn again(&self, fleet: &Fleet, agent: &AgentTunnel, mib: usize) {
        fleet.counts([Some(1), None, Some(0), Some(0)]).await;
        let quiet = || agent.connections() == 0 && agent.pending_dials() == 0;
        eventually(quiet, || format!("{} connections", agent.connections())).await;
        let broker = &fleet.running.broker;
        let endpoint = Endpoint::parse(&broker.list(None, 1, |_| true)[0].endpoint).unwrap();
        let session = broker.find(&endpoint).expect("attached");
        let left = || (session.remembered(), session.connections(), session.pending());
        eventually(|| left() == (0, 0, 0), || format!("links, places, dials: {:?}", left())).await;
        let pooled = 64 * 8;
        eventually(
            || files() <= self.files + 4 && tasks() <= self.tasks + pooled,
            || {
                let now = (files(), tasks());
                format!("{now:?} files and tasks, and {:?} before", (self.files, self.tasks))
            },
        )
        .await;
        let now = resident_mib();
        assert!(now <= self.mib + mib, "{now} MiB, and {} before", self.mib);
    }
}

async fn wolf_to(fleet: &Fleet, tcp: std::net::SocketAddr) -> (Endpoint, AgentTunnel) {
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("port", Arc::new(Tcp(tcp)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    (Endpoint::Wolf(wolf), agent)
}

/// `WOLFPACK_TEST_DIALS`: how many dials are given up; 100,000 take minutes in a
/// debug build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_dials_that_are_given_up_leave_nothing() {
    let _alone = alone().await;
    let fleet = Fleet::start().await;
    let (endpoint, agent) = wolf_to(&fleet, echo().await).await;
    let dialer = fleet.dialer();
    let give_up = async |from: usize, to: usize| {
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..8 {
            let (dialer, endpoint) = (dialer.clone(), endpoint.clone());
            workers.spawn(async move {
                let port = target("port");
                for at in (from + worker..to).step_by(8) {
                    let patience = Duration::from_micros(at as u64 % 97 * 60);
                    let dial = dialer.dial(&endpoint, &port, SOON);
                    let _ = tokio::time::timeout(patience, dial).await;
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done.unwrap();
        }
    };
    let all = amount("WOLFPACK_TEST_DIALS", 10_000);
    // The first ones make what is kept: pools, and the allocator's own.
    give_up(0, all / 5).await;
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    let session = fleet.running.broker.find(&endpoint).unwrap();
    let rest = Rest::now();
    give_up(all / 5, all).await;
    rest.again(&fleet, &agent, 32).await;
    let present = fleet.running.broker.find(&endpoint).unwrap();
    assert!(Arc::ptr_eq(&session, &present), "the tunnel was lost: {:?}", session.fault());
    assert!(fleet.dial(&endpoint).await.is_ok());
}

/// `WOLFPACK_TEST_CONNECTIONS`: how many short connections there are; these take
/// twenty seconds in a debug build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_short_connections_leave_nothing() {
    let _alone = alone().await;
    let fleet = Fleet::start().await;
    let (endpoint, agent) = wolf_to(&fleet, echo().await).await;
    let dialer = fleet.dialer();
    let churn = async |count: usize| {
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..16 {
            let (dialer, endpoint) = (dialer.clone(), endpoint.clone());
            workers.spawn(async move {
                for at in 0..count / 16 {
                    let mut stream = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
                    stream.write_all(b"some bytes").await.unwrap();
                    stream.read_exact(&mut [0; 10]).await.unwrap();
                    match (worker + at) % 3 {
                        0 => {
                            stream.shutdown().await.unwrap();
                            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
                        }
                        1 => stream.shutdown().await.unwrap(),
                        _ => {}
                    }
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done.unwrap();
        }
    };
    let all = amount("WOLFPACK_TEST_CONNECTIONS", 10_000);
    churn(all / 5).await;
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    let session = fleet.running.broker.find(&endpoint).unwrap();
    let rest = Rest::now();
    churn(all - all / 5).await;
    rest.again(&fleet, &agent, 32).await;
    let present = fleet.running.broker.find(&endpoint).unwrap();
    assert!(Arc::ptr_eq(&session, &present), "the tunnel was lost: {:?}", session.fault());
}

/// Downloads that are cut in the middle, again and again: what was on its way
/// must not end the connection of the agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_downloads_that_are_cut_leave_the_tunnel() {
    let _alone = alone().await;
    let fleet = Fleet::start().await;
    let (endpoint, agent) = wolf_to(&fleet, crate::support::talker().await).await;
    let session = fleet.running.broker.find(&endpoint).unwrap();
    let rest = Rest::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (dialer, endpoint) = (fleet.dialer(), endpoint.clone());
        workers.spawn(async move {
            for _ in 0..20 {
                let mut stream = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
                stream.read_exact(&mut [0; 4096]).await.unwrap();
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    let present = fleet.running.broker.find(&endpoint).expect("attached");
    assert!(Arc::ptr_eq(&session, &present), "the tunnel was lost: {:?}", session.fault());
    rest.again(&fleet, &agent, 96).await;
}

/// `WOLFPACK_TEST_MIB`: how much goes through one connection; a GiB takes twenty
/// seconds in a debug build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_through_one_connection_takes_no_memory() {
    let _alone = alone().await;
    let fleet = Fleet::start().await;
    let mib = amount("WOLFPACK_TEST_MIB", 1024);
    let (endpoint, agent) = wolf_to(&fleet, source(mib << 20).await).await;
    let rest = Rest::now();
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut most) = (0_usize, 0);
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        if total >> 24 != (total + read) >> 24 {
            most = most.max(resident_mib());
        }
        total += read;
    }
    assert_eq!(total, mib << 20);
    // The windows of three hops, twice, and no more.
    assert!(most <= rest.mib + 48, "{most} MiB at the most, and {} before", rest.mib);
    drop(stream);
    rest.again(&fleet, &agent, 48).await;
}

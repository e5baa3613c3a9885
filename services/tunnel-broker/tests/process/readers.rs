//! Readers who stop: what they pin is bounded for all of them together.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use wolfpack_tunnel::splice::Direction;
use wolfpack_tunnel_broker::domain::exposure::{ExposureLimits, ExposureSpec};
use wolfpack_types::{Endpoint, ExposureId, WolfId};

use crate::self_view::{alone, resident_mib};
use crate::support::{Fleet, Tcp, attached, eventually, talker, target};

const READERS: usize = 1000;
/// Readers who wait for their target at once: a hundred dials of one tunnel may,
/// and whoever comes beyond that is refused. What the others are sent meanwhile
/// makes them wait, the longer the slower the machine is.
const AHEAD: usize = 50;
const BUDGET_MIB: usize = 128;
/// Within a budget of 128 MiB, 585 connections have 64 KiB each at the end, and
/// each of the rest pins as much more.
const BEYOND_MIB: usize = (READERS - 585) / 16;
/// At the agent: a block of 64 KiB that is being sent, and what waits behind it.
const SENDING_MIB: usize = READERS * 128 / 1024;
/// Those who came first may have larger ones, from when the agent's windows were: two
/// of 256 KiB each up to the 146th connection, two of 128 KiB up to the 292nd.
const EARLY_MIB: usize = 146 * (2 * (256 - 64) + 2 * (128 - 64)) / 1024;
/// The targets are in this process, too, each with 64 KiB to send.
const TARGETS_MIB: usize = READERS / 16;
/// The tasks of both ends, and the allocator's own.
const REST_MIB: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_read_nothing_stay_within_the_budget() {
    let _alone = alone().await;
    // Four for each reader, as both ends and the targets are in this process.
    wolfpack_tunnel_broker::files::raise_limit();
    let fleet = Fleet::with(|config| {
        config.limits.byte_budget = (BUDGET_MIB << 20) as u64;
    })
    .await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("port", Arc::new(Tcp(talker().await)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    // The broker runs.
    fleet.registry.followed().await;
    let exposure = ExposureSpec {
        id: ExposureId::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        endpoint: Endpoint::Wolf(wolf),
        target: target("port"),
        limits: ExposureLimits { max_connections: 2000, ..ExposureLimits::default() },
        origin: None,
    };
    let exposure = fleet.running.exposures.open(exposure).unwrap();
    let front = exposure.address;
    let before = resident_mib();
    let mut readers = Vec::new();
    for connected in 1..=READERS {
        let socket = TcpSocket::new_v4().unwrap();
        // What the kernel holds is not what this is about.
        socket.set_recv_buffer_size(4096).unwrap();
        readers.push(socket.connect(front).await.unwrap());
        let reached = || agent.connections() as usize;
        let follows = || reached() + AHEAD >= connected;
        let state = || format!("{} of {connected}; {:?}", reached(), exposure.failures());
        eventually(follows, state).await;
    }
    let totals = &fleet.running.broker.totals;
    let (mut last, mut most) = (0, 0);
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        most = most.max(resident_mib());
        let now = totals.bytes(Direction::Down);
        if now == last && agent.connections() as usize == READERS {
            break;
        }
        last = now;
    }
    let (failed, refused) = (exposure.failures(), exposure.refused());
    assert_eq!(fleet.running.broker.budget.held(), READERS, "{failed:?}, {refused} refused");
    let sending = SENDING_MIB + EARLY_MIB;
    let bound = BUDGET_MIB + BEYOND_MIB + sending + TARGETS_MIB + REST_MIB;
    let pinned = most.saturating_sub(before);
    assert!(pinned <= bound, "{pinned} MiB are pinned, and {bound} were promised");
    // A window of 2 MiB each would have been more than twice as much.
    assert_eq!(fleet.running.broker.budget.window(), 64 * 1024);
    drop(readers);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    assert_eq!(fleet.running.broker.budget.held(), 0);
}

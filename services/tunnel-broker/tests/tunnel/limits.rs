//! What a tunnel is kept to.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wolfpack_tunnel::splice::Direction;
use wolfpack_tunnel_broker::domain::exposure::ExposureLimits;
use wolfpack_types::{Endpoint, Reason};

use crate::support::{Fleet, SOON, echo, sink_then_send};
use crate::support::{checksum, pattern};

/// Bytes a second of the tests below.
const RATE: u64 = 256 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_tunnel_are_bounded_by_the_broker_too() {
    let fleet = Fleet::with(|config| config.limits.connections_per_tunnel = 2).await;
    let (endpoint, other) = (fleet.wolf_to(echo().await).await, fleet.wolf_to(echo().await).await);
    let first = fleet.dial(&endpoint).await.unwrap();
    let _second = fleet.dial(&endpoint).await.unwrap();
    let fault = fleet.dial(&endpoint).await.unwrap_err();
    assert_eq!(fault.reason, Reason::DialsLimited);
    assert!(fault.message.contains("2 connections"), "{fault}");
    fleet.dial(&other).await.expect("another tunnel has its own");
    drop(first);
    fleet.counts([Some(2), None, Some(1), None]).await;
    fleet.dial(&endpoint).await.expect("a place was given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dials_to_a_tunnel_have_a_rate_and_a_burst_with_a_hint() {
    let fleet = Fleet::with(|config| {
        // One in 20 s is one at a time: the burst is what counts here.
        config.limits.dials_per_second = 1;
        config.limits.dials_burst = 5;
    })
    .await;
    let (endpoint, other) = (fleet.wolf_to(echo().await).await, fleet.wolf_to(echo().await).await);
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(fleet.dial(&endpoint).await.map(drop));
    }
    assert!(answers[..5].iter().all(Result::is_ok), "a burst passes: {answers:?}");
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(refused.len() >= 5, "{refused:?}");
    for fault in refused {
        assert_eq!(fault.reason, Reason::DialsLimited);
        let hint = fault.retry_after.expect("when to try again");
        assert!(hint <= Duration::from_secs(1), "{hint:?}");
        assert!(fault.message.contains("1 dials a second"), "{fault}");
    }
    fleet.dial(&other).await.expect("another tunnel has its own");
    // The hint is true.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    fleet.dial(&endpoint).await.expect("after the hint");
}

/// Sends `bytes` up and gets as many back.
async fn exchange(fleet: &Fleet, endpoint: &Endpoint, bytes: usize) {
    let mut stream = fleet.dial(endpoint).await.unwrap();
    let up = pattern(bytes);
    stream.write_all(&up).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read_u64().await.unwrap(), bytes as u64);
    assert_eq!(stream.read_u64().await.unwrap(), checksum(&up));
    let mut down = Vec::new();
    stream.read_to_end(&mut down).await.unwrap();
    assert!(down == pattern(bytes), "a rate changes no byte");
    stream.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_a_tunnel_keep_to_its_rate_in_each_direction_over_all_connections() {
    let fleet = Fleet::with(|config| config.limits.bytes_per_second = RATE).await;
    let size = 192 * 1024;
    let endpoint = fleet.wolf_to(sink_then_send(size).await).await;
    let totals = &fleet.running.broker.totals;
    let began = Instant::now();
    let both = async {
        tokio::join!(exchange(&fleet, &endpoint, size), exchange(&fleet, &endpoint, size));
    };
    tokio::time::timeout(3 * SOON, both).await.expect("slow, and not for ever");
    // Up first, then down: each 384 KiB less what passes at once, at 256 KiB/s.
    let least = 2 * (2 * size as u64 - RATE / 10 - 4 * 64 * 1024) * 1000 / RATE;
    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
    assert!(took >= least, "{took} ms, not {least}");
    for direction in [Direction::Up, Direction::Down] {
        assert!(totals.throttled(direction) > 0, "{direction:?}");
    }

    // Without a rate nobody waits.
    let free = Fleet::start().await;
    let endpoint = free.wolf_to(sink_then_send(size).await).await;
    exchange(&free, &endpoint, size).await;
    assert_eq!(free.running.broker.totals.throttled(Direction::Up), 0);
    assert_eq!(free.running.broker.totals.throttled(Direction::Down), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_waits_for_its_rate_ends_when_its_caller_leaves() {
    let fleet = Fleet::with(|config| config.limits.bytes_per_second = 1024).await;
    let endpoint = fleet.wolf_to(crate::support::talker().await).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    let mut some = vec![0; 16 * 1024];
    stream.read_exact(&mut some).await.unwrap();
    // A frame of up to 64 KiB is paid for with a minute at most.
    fleet.counts([Some(1), None, Some(1), None]).await;
    drop(stream);
    fleet.counts([Some(1), None, Some(0), None]).await;
}

/// Of a port of the broker's: whoever leaves there breaks a socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_port_that_waits_for_its_rate_is_gone_when_it_leaves() {
    let fleet = Fleet::with(|config| config.limits.bytes_per_second = 1024).await;
    let endpoint = fleet.wolf_to(crate::support::silent().await).await;
    let address = crate::exposures::expose(&fleet, &endpoint, ExposureLimits::default()).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    // Paid for with a minute and more.
    socket.write_all(&vec![1; 96 * 1024]).await.unwrap();
    fleet.counts([Some(1), None, Some(1), None]).await;
    let totals = &fleet.running.broker.totals;
    let waits = || totals.throttled(Direction::Up) > 0;
    crate::support::eventually(waits, || "nothing was charged".into()).await;
    socket.set_zero_linger().unwrap();
    drop(socket);
    fleet.counts([Some(1), None, Some(0), None]).await;
}

//! What breaks, and how both sides learn of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wolfpack_proto::tunnel::v1::Open;
use wolfpack_tunnel::splice::CarryAnswer;
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_types::{Endpoint, Fault, Reason, WolfId};

use crate::support::{Fleet, Relay, SOON, Tcp, attached, echo, silent, target};

fn fault_of(error: &std::io::Error) -> Reason {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).expect("a fault").reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_mid_body_is_an_error_and_not_an_end() {
    let fleet = Fleet::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = fleet.wolf_to(listener.local_addr().unwrap()).await;
    let (read, all_read) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(&[1; 100_000]).await.unwrap();
        // A reset drops what is in flight: it waits until all was read.
        all_read.await.unwrap();
        socket.set_zero_linger().unwrap();
    });
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    stream.read_exact(&mut [0; 100_000]).await.expect("what came before the reset arrives");
    read.send(()).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(fault_of(&error), Reason::ConnectionReset);
    assert!(stream.read(&mut [0; 8]).await.is_err(), "it stays an error");
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_drops_a_connection_resets_it_and_one_that_finishes_does_not() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    let mut listener = builder.listen("port");
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let (read, part_read) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut dropped = listener.accept().await.unwrap();
        dropped.write_all(b"part").await.unwrap();
        part_read.await.unwrap();
        drop(dropped);
        // The second one says all it has to and leaves without reading on.
        let mut finished = listener.accept().await.unwrap();
        finished.write_all(b"whole").await.unwrap();
        finished.shutdown().await.unwrap();
        drop(finished);
        listener.accept().await
    });
    let endpoint = Endpoint::Wolf(wolf);
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    let mut part = [0; 4];
    stream.read_exact(&mut part).await.unwrap();
    assert_eq!(&part, b"part");
    read.send(()).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(fault_of(&error), Reason::ConnectionReset);
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"whole");
    drop(stream);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_is_good_only_when_the_target_took_all_that_was_sent() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    let mut listener = builder.listen("port");
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    tokio::spawn(async move {
        for reads in [true, false] {
            let mut io = listener.accept().await.unwrap();
            io.write_all(b"answer").await.unwrap();
            io.shutdown().await.unwrap();
            if reads {
                // It holds the connection for longer than the caller closes it.
                io.read_to_end(&mut Vec::new()).await.unwrap();
                std::mem::forget(io);
            }
        }
        listener.accept().await
    });
    let endpoint = Endpoint::Wolf(wolf);
    for taken in [true, false] {
        let mut stream = fleet.dial(&endpoint).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"answer");
        // To one that has left, or to one that still reads; either may be quick.
        let _ = stream.write_all(b"more").await;
        let closed = tokio::time::timeout(SOON, stream.close()).await.expect("in time");
        match closed {
            Ok(()) => assert!(taken, "what nobody read is no clean end"),
            Err(error) => {
                assert!(!taken, "{error}");
                assert_eq!(fault_of(&error), Reason::ConnectionReset);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_reaches_the_agent() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    let mut listener = builder.listen("port");
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let mut stream = fleet.dial(&Endpoint::Wolf(wolf)).await.unwrap();
    let mut io = listener.accept().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    io.read_exact(&mut got).await.unwrap();
    drop(stream);
    let read = tokio::time::timeout(SOON, io.read(&mut got)).await.expect("told in time");
    assert_eq!(fault_of(&read.unwrap_err()), Reason::Cancelled);
    let written = async {
        while io.write_all(&[0; 1024]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, written).await.expect("writes fail too");
    drop(io);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    crate::support::eventually(
        || agent.connections() == 0,
        || "the agent's connection is over".into(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_instance_wins_and_the_old_one_stays_away() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut first = fleet.wolf(&wolf);
    first.dial_target("port", Arc::new(Tcp(silent().await)));
    let first = first.start(&fleet.context.supervisor);
    attached(&first).await;
    let endpoint = Endpoint::Wolf(wolf.clone());
    let mut stream = fleet.dial(&endpoint).await.unwrap();

    let mut second = fleet.wolf(&wolf);
    second.dial_target("port", Arc::new(Tcp(echo().await)));
    let second = second.start(&fleet.context.supervisor);
    attached(&second).await;
    let mut ended = first.ended();
    let fault =
        tokio::time::timeout(SOON, ended.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert_eq!(fault.unwrap().reason, Reason::Superseded);
    let error = tokio::time::timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(
        fault_of(&error),
        Reason::TunnelLost,
        "connections of the old one end with a reason"
    );

    let mut stream = fleet.dial(&endpoint).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    // The old one would be back by now if it fought.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!*first.attached().borrow() && *second.attached().borrow());
    stream.write_all(b"y").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'y');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_slept_does_not_supersede_its_successor_after_a_restart_of_the_broker() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let config = |age: u64| {
        let mut config = AgentTunnelConfig::new(Endpoint::Wolf(wolf.clone()), "test");
        config.started -= Duration::from_secs(age);
        config
    };
    let channel = || fleet.wolf_channel(&wolf, fleet.running.addresses.agents);
    // What a broker that has just started sees: the newer one, then the older.
    let newer = AgentTunnel::builder(config(0), channel()).start(&fleet.context.supervisor);
    attached(&newer).await;
    let session = fleet.running.broker.find(&Endpoint::Wolf(wolf.clone())).unwrap();
    let older = AgentTunnel::builder(config(3600), channel()).start(&fleet.context.supervisor);
    let mut ended = older.ended();
    let fault =
        tokio::time::timeout(SOON, ended.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert_eq!(fault.unwrap().reason, Reason::Superseded);
    let present = fleet.running.broker.find(&Endpoint::Wolf(wolf.clone())).unwrap();
    assert!(Arc::ptr_eq(&session, &present) && present.fault().is_none(), "undisturbed");
    assert!(newer.ended().borrow().is_none());

    // With the newer one gone, one whose clock is behind is as good as any.
    let fault = Fault::new(Reason::Superseded, "given up by the test");
    fleet.running.broker.detach(&session, &fault);
    let behind = AgentTunnel::builder(config(7200), channel()).start(&fleet.context.supervisor);
    attached(&behind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_dials_that_were_asked_for_leave_nothing_at_the_agent() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("port", Arc::new(Tcp(echo().await)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let session = fleet.running.broker.find(&Endpoint::Wolf(wolf)).unwrap();
    for at in 0..2000 {
        let mut asked = session.ask(SOON).unwrap();
        let mut carry = asked.stream().await.expect("in time").expect("a stream");
        if at % 2 == 0 {
            let open = Open { target: "port".to_owned(), ..Open::default() };
            carry.open(open);
            assert!(matches!(carry.answer().await, CarryAnswer::Opened));
        }
    }
    crate::support::eventually(
        || agent.pending_dials() == 0 && agent.connections() == 0,
        || format!("{} dials, {} connections", agent.pending_dials(), agent.connections()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_comes_back_after_the_broker_was_restarted() {
    let mut fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(echo().await).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    let config = fleet.config();
    fleet.running.stop().await;
    assert!(stream.read_u8().await.is_err(), "open connections end at once");
    fleet.running = Fleet::run(config).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    stream.write_all(b"back").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_to_an_endpoint_that_is_away_waits_until_its_deadline() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let endpoint = Endpoint::Wolf(wolf.clone());
    let began = Instant::now();
    let fault = fleet
        .dialer()
        .dial(&endpoint, &target("port"), Duration::from_millis(700))
        .await
        .unwrap_err();
    assert_eq!(fault.reason, Reason::DialTimeout, "{fault}");
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    fleet.counts([Some(0), Some(0), Some(0), Some(0)]).await;

    let dialer = fleet.dialer();
    let waits = tokio::spawn(async move { dialer.dial(&endpoint, &target("port"), SOON).await });
    fleet.counts([Some(0), None, None, Some(1)]).await;
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("port", Arc::new(Tcp(echo().await)));
    let _agent = builder.start(&fleet.context.supervisor);
    assert!(waits.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_agent_is_found_and_its_connections_end() {
    let fleet = Fleet::with(|config| config.limits.heartbeat = Duration::from_millis(600)).await;
    let relay = Relay::start(fleet.running.addresses.agents).await;
    let wolf = WolfId::new();
    let config = AgentTunnelConfig::new(Endpoint::Wolf(wolf.clone()), "test");
    let mut builder = AgentTunnel::builder(config, fleet.wolf_channel(&wolf, relay.address));
    builder.dial_target("port", Arc::new(Tcp(echo().await)));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let mut stream = fleet.dial(&Endpoint::Wolf(wolf)).await.unwrap();
    // It lives on pings alone for longer than a silent peer may.
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_eq!(fleet.running.broker.counts()[0], 1);
    relay.pass(false, false);
    let began = Instant::now();
    let error = tokio::time::timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(fault_of(&error), Reason::TunnelLost);
    fleet.counts([Some(0), Some(0), None, None]).await;
    // 1.5 heartbeats, and slack for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut seen = agent.attached();
    tokio::time::timeout(SOON, seen.wait_for(|attached| !*attached))
        .await
        .expect("the agent finds out too")
        .unwrap();
    // By its own heartbeat: the connection's is that of production, 15 s.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_does_not_answer_costs_no_more_than_the_deadline() {
    struct Never;
    #[async_trait::async_trait]
    impl wolfpack_tunnel::TargetDialer for Never {
        async fn dial(
            &self,
            _: &wolfpack_types::Target,
            _: &wolfpack_tunnel::TunnelPeer,
        ) -> Result<wolfpack_tunnel::TargetStream, Fault> {
            std::future::pending().await
        }
    }
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("port", Arc::new(Never));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let endpoint = Endpoint::Wolf(wolf);
    let fault = fleet
        .dialer()
        .dial(&endpoint, &target("port"), Duration::from_millis(500))
        .await
        .unwrap_err();
    assert_eq!(fault.reason, Reason::DialTimeout);
    // One that is taken back before its deadline ends at the agent too.
    let dialer = fleet.dialer();
    // Longer than is waited for below.
    let patience = 3 * SOON;
    let waits =
        tokio::spawn(async move { dialer.dial(&endpoint, &target("port"), patience).await });
    crate::support::eventually(|| agent.connections() == 1, || "the agent dials".into()).await;
    waits.abort();
    crate::support::eventually(|| agent.connections() == 0, || "the agent gave up".into()).await;
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

//! Bytes, from a caller to a target and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wolfpack_proto::tunnel::v1::ListTunnelsRequest;
use wolfpack_proto::tunnel::v1::tunnel_service_client::TunnelServiceClient;
use wolfpack_proto::tunnel::v1::tunnel_service_server::TunnelServiceServer;
use wolfpack_tunnel::{AgentTunnel, AgentTunnelConfig};
use wolfpack_tunnel_broker::service::Tunnels;
use wolfpack_types::{Endpoint, Reason, WolfId};

use crate::support::{
    Fleet, Relay, SOON, Tcp, attached, checksum, echo, pattern, sink_then_send, target,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close_is_exact_both_ways_over_a_socket() {
    let fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(sink_then_send(2 << 20).await).await;
    let mut stream = fleet.dial(&endpoint).await.unwrap();
    let up = pattern(1 << 20);
    stream.write_all(&up).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(stream.write_all(b"more").await.is_err(), "nothing goes after the fin");
    assert_eq!(stream.read_u64().await.unwrap(), up.len() as u64);
    assert_eq!(stream.read_u64().await.unwrap(), checksum(&up));
    let mut down = Vec::new();
    stream.read_to_end(&mut down).await.unwrap();
    assert!(down == pattern(2 << 20));
    drop(stream);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    let totals = &fleet.running.broker.totals;
    assert!(totals.bytes(wolfpack_tunnel::splice::Direction::Up) >= 1 << 20);
    assert!(totals.bytes(wolfpack_tunnel::splice::Direction::Down) >= 2 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close_is_exact_both_ways_in_process() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    let mut listener = builder.listen("port");
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let serve = tokio::spawn(async move {
        let mut io = listener.accept().await.unwrap();
        assert_eq!(io.peer().caller, "services/sandbox-manager");
        assert_eq!(io.peer().target, "port");
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.unwrap();
        io.write_all(&pattern(2 << 20)).await.unwrap();
        io.shutdown().await.unwrap();
        all
    });
    let mut stream = fleet.dial(&Endpoint::Wolf(wolf)).await.unwrap();
    stream.write_all(&pattern(1 << 20)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut down = Vec::new();
    stream.read_to_end(&mut down).await.unwrap();
    assert!(down == pattern(2 << 20));
    assert!(serve.await.unwrap() == pattern(1 << 20));
    drop(stream);
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_dial_costs_one_round_trip_and_early_data_half_of_one() {
    let fleet = Fleet::start().await;
    let relay = Relay::start(fleet.running.addresses.agents).await;
    let wolf = WolfId::new();
    let config = AgentTunnelConfig::new(Endpoint::Wolf(wolf.clone()), "test");
    let mut builder = AgentTunnel::builder(config, fleet.wolf_channel(&wolf, relay.address));
    let mut listener = builder.listen("port");
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    fleet.counts([Some(1), Some(2), None, None]).await;
    // From here on nothing of the agent reaches the broker: what the agent gets
    // needs no answer of its own.
    relay.pass(false, true);
    let (dialer, endpoint) = (fleet.dialer(), Endpoint::Wolf(wolf));
    let dial = tokio::spawn(async move {
        let early = Bytes::from_static(b"early");
        dialer.dial_with(&endpoint, &target("port"), SOON, early).await
    });
    let mut io = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut early = [0; 5];
    io.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early", "half a round trip to the first byte");
    assert!(!dial.is_finished(), "the agent's answer is held");
    // And nothing of the broker reaches the agent any more: what the caller
    // gets needs the one answer and no second question.
    io.write_all(b"!").await.unwrap();
    relay.pass(true, false);
    let mut stream = tokio::time::timeout(SOON, dial).await.unwrap().unwrap().unwrap();
    let first = tokio::time::timeout(SOON, stream.read_u8()).await.unwrap().unwrap();
    assert_eq!(first, b'!', "one round trip for the dial and the target's first byte");
    relay.pass(true, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_dials_than_parked_streams_all_get_theirs() {
    let fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(echo().await).await;
    fleet.counts([Some(1), Some(2), None, None]).await;
    let dialer = fleet.dialer();
    let all = (0..60_u8).map(|at| {
        let (dialer, endpoint) = (dialer.clone(), endpoint.clone());
        tokio::spawn(async move {
            let mut stream = dialer.dial(&endpoint, &target("port"), SOON).await.unwrap();
            stream.write_all(&[at; 100]).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            assert_eq!(back, [at; 100]);
        })
    });
    for done in all.collect::<Vec<_>>() {
        done.await.unwrap();
    }
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
    assert!(fleet.running.broker.counts()[1] > 2, "the pool grew with use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_runs_over_the_tunnel_and_redials() {
    let fleet = Fleet::start().await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    let listener = builder.listen("runtime");
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    // Any service will do; the broker's own list is one that is at hand.
    let service = TunnelServiceServer::new(Tunnels::new(Arc::clone(&fleet.running.broker)));
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(listener),
    );
    let channel = fleet.dialer().channel(Endpoint::Wolf(wolf), target("runtime"));
    let mut client = TunnelServiceClient::new(channel);
    for _ in 0..3 {
        client.list_tunnels(ListTunnelsRequest::default()).await.unwrap();
    }
    assert_eq!(fleet.running.broker.counts()[2], 1, "one connection carries all calls");
    let session = fleet.running.broker.watch().tunnels.remove(0).0;
    let session = fleet.running.broker.session(&session.session_id).unwrap();
    fleet
        .running
        .broker
        .detach(&session, &wolfpack_types::Fault::new(Reason::TunnelLost, "cut by the test"));
    let end = Instant::now() + SOON;
    while client.list_tunnels(ListTunnelsRequest::default()).await.is_err() {
        assert!(Instant::now() < end, "no call came through after the tunnel was cut");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_the_agent_reach_the_caller_with_their_reason() {
    let fleet = Fleet::start().await;
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    builder.dial_target("port", Arc::new(Tcp(closed)));
    drop(builder.listen("runtime"));
    let agent = builder.start(&fleet.context.supervisor);
    attached(&agent).await;
    let endpoint = Endpoint::Wolf(wolf);
    let dialer = fleet.dialer();
    for (name, reason) in [
        ("port", Reason::TargetUnreachable),
        ("runtime", Reason::TargetUnreachable),
        ("agent", Reason::TargetForbidden),
    ] {
        let fault = dialer.dial(&endpoint, &target(name), SOON).await.unwrap_err();
        assert_eq!(fault.reason, reason, "{name}: {fault}");
    }
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_client_speaks_dial_and_may_end_without_fin() {
    use futures::StreamExt as _;
    use wolfpack_proto::tunnel::v1::dial_service_client::DialServiceClient;
    use wolfpack_proto::tunnel::v1::{DialOpen, DialRequest, dial_request, dial_response};

    let fleet = Fleet::start().await;
    let endpoint = fleet.wolf_to(echo().await).await;
    let mut client = DialServiceClient::new(fleet.service_channel("sandbox-manager"));
    let open = DialOpen {
        endpoint: endpoint.to_string(),
        target: "port".to_owned(),
        early_data: Bytes::from_static(b"first "),
        timeout: None,
    };
    let frames = [
        dial_request::Frame::Open(open),
        dial_request::Frame::Data(Bytes::from_static(b"second ")),
        dial_request::Frame::Data(Bytes::new()),
        dial_request::Frame::Data(Bytes::from(vec![b'x'; 300_000])),
    ];
    let requests = futures::stream::iter(frames).map(|frame| DialRequest { frame: Some(frame) });
    let mut answers = client.dial(requests).await.unwrap().into_inner();
    let mut data = Vec::new();
    let mut order = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.frame.unwrap() {
            dial_response::Frame::Opened(opened) => {
                assert!(!opened.connection_id.is_empty());
                order.push("opened");
            }
            dial_response::Frame::Data(bytes) => data.extend_from_slice(&bytes),
            dial_response::Frame::Fin(_) => order.push("fin"),
        }
    }
    assert_eq!(order, ["opened", "fin"]);
    assert_eq!(data.len(), 300_000 + 13);
    assert!(data.starts_with(b"first second xxx"));
    fleet.counts([Some(1), None, Some(0), Some(0)]).await;

    // What does not begin with open, or is malformed, is refused with a reason.
    let wrong = [dial_request::Frame::Data(Bytes::from_static(b"x"))];
    let requests = futures::stream::iter(wrong).map(|frame| DialRequest { frame: Some(frame) });
    let status = client.dial(requests).await.unwrap_err();
    assert_eq!(wolfpack_rpc::from_status(&status).reason, Reason::FirstMessageMissing);
    let odd = DialOpen {
        endpoint: "wolves/../x".to_owned(),
        target: "port".to_owned(),
        ..DialOpen::default()
    };
    let requests =
        futures::stream::iter([DialRequest { frame: Some(dial_request::Frame::Open(odd)) }]);
    let status = client.dial(requests).await.unwrap_err();
    assert_eq!(wolfpack_rpc::from_status(&status).reason, Reason::RequestInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_from_the_caller_to_the_agent() {
    use tracing::Instrument as _;
    use tracing::instrument::WithSubscriber as _;
    use wolfpack_runtime::{Context, Telemetry, TelemetryConfig, trace_context};

    let traced = |name: &str| Telemetry::new(name, &TelemetryConfig::default()).unwrap();
    let fleet = Fleet::traced(traced("tunnel-broker")).await;
    let wolf = WolfId::new();
    let mut builder = fleet.wolf(&wolf);
    let mut listener = builder.listen("port");
    let agents = Context::with(traced("wolf-agent"));
    attached(&builder.start(&agents.supervisor)).await;
    let caller = traced("sandbox-manager");
    let dialer = fleet.dialer();
    let dial = async {
        let span = tracing::info_span!("caller");
        let own = trace_context::traceparent_of(&span).unwrap();
        let stream =
            dialer.dial(&Endpoint::Wolf(wolf), &target("port"), SOON).instrument(span).await;
        (own, stream.unwrap())
    };
    let (own, _stream) = dial.with_subscriber(caller.dispatch()).await;
    let peer = listener.accept().await.unwrap().peer().traceparent.clone();
    assert_eq!(peer[..36], own[..36], "one trace");
    assert_ne!(peer, own, "another span");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_threads_of_the_data_plane_serve_one_broker() {
    for data_threads in [0, 3] {
        let fleet = Fleet::with(|config| config.data_threads = data_threads).await;
        let endpoint = fleet.wolf_to(sink_then_send(1 << 20).await).await;
        for _ in 0..8 {
            // A channel each, so that they land on different threads.
            let mut stream = fleet.dial(&endpoint).await.unwrap();
            let up = pattern(300_000);
            stream.write_all(&up).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read_u64().await.unwrap(), up.len() as u64);
            assert_eq!(stream.read_u64().await.unwrap(), checksum(&up));
            let mut down = Vec::new();
            stream.read_to_end(&mut down).await.unwrap();
            assert!(down == pattern(1 << 20));
        }
        let report = fleet.running.stop().await;
        assert_eq!(report.aborted, Vec::<&str>::new(), "{data_threads} threads");
    }
}

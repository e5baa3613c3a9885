//! Deadlines: given, malformed, past, by default, inherited, on streams.

use std::time::{Duration, Instant};

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::*;
use wolfpack_rpc::ListenConfig;
use wolfpack_types::Reason;

use crate::world::{ANY, Wolves, World, eventually, get, reason, secret};

type Plain = Client<HttpConnector, Body>;

/// A client that keeps no time, so that only the server does.
fn foreign(world: &World) -> WolfServiceClient<Plain> {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    WolfServiceClient::with_origin(client, format!("http://{}", world.address).parse().unwrap())
}

fn with<T>(message: T, timeout: &str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("authorization", MetadataValue::from_static("Bearer wp_developer"));
    if !timeout.is_empty() {
        metadata.insert("grpc-timeout", timeout.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_unary_call_ends_in_time_and_its_handler_with_it() {
    let world = World::plain(|profile| profile.default_deadline = Duration::from_millis(300)).await;
    // Only the default of the server: the client sends none.
    let begun = Instant::now();
    let status = foreign(&world).get_wolf(with(get("wolves/slow"), "")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason::<()>(Err(status))),
        (Code::DeadlineExceeded, Reason::DeadlineExceeded)
    );
    assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&begun.elapsed()));
    eventually(|| world.probe.running(), |running| *running == 0).await;
    // Our own client's, which answers even when the server does not.
    let client = world
        .channel()
        .with_bearer(secret("wp_developer"))
        .with_deadline(Duration::from_millis(100));
    let status = WolfServiceClient::new(client).get_wolf(get("wolves/slow")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason::<()>(Err(status))),
        (Code::DeadlineExceeded, Reason::DeadlineExceeded)
    );
    eventually(|| world.probe.running(), |running| *running == 0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_stream_is_cut_at_the_clients_deadline() {
    let world = World::plain(|profile| profile.default_deadline = Duration::from_millis(100)).await;
    let mut client = foreign(&world);
    let request = with(WatchWolvesRequest::default(), "300m");
    let mut events = client.watch_wolves(request).await.unwrap().into_inner();
    let begun = Instant::now();
    let status = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), reason::<()>(Err(status))),
        (Code::DeadlineExceeded, Reason::DeadlineExceeded)
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
    eventually(|| world.probe.running(), |running| *running == 0).await;

    // Without one it outlives the default of unary calls by far.
    let mut events =
        client.watch_wolves(with(WatchWolvesRequest::default(), "")).await.unwrap().into_inner();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        assert!(events.message().await.unwrap().is_some());
    }
    // One that never answers is cut too.
    let silent = with(WatchWolvesRequest { resume_revision: 77 }, "100m");
    assert_eq!(reason(client.watch_wolves(silent).await), Reason::DeadlineExceeded);
    // And our client cuts for itself.
    let channel = world
        .channel()
        .with_bearer(secret("wp_developer"))
        .with_deadline(Duration::from_millis(200));
    let mut events = WolfServiceClient::new(channel)
        .watch_wolves(WatchWolvesRequest::default())
        .await
        .unwrap()
        .into_inner();
    let status = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(reason::<()>(Err(status)), Reason::DeadlineExceeded);
    drop(events);
    world.stop().await;
}

#[tokio::test]
async fn what_the_header_says_is_checked() {
    let world = World::plain(|_| {}).await;
    let mut client = foreign(&world);
    for odd in ["1", "S", "1x", "123456789S", "-1S", "1.5S"] {
        let status = client.get_wolf(with(get("wolves/ok"), odd)).await.unwrap_err();
        assert_eq!(reason::<()>(Err(status)), Reason::RequestInvalid, "{odd}");
    }
    assert_eq!(world.probe.ran(), 0);
    assert_eq!(
        reason(client.get_wolf(with(get("wolves/ok"), "0m")).await),
        Reason::DeadlineExceeded
    );
    assert_eq!(world.probe.ran(), 0, "past on arrival: no handler runs");
    world.stop().await;
}

#[tokio::test]
async fn a_client_may_ask_for_so_long_and_no_longer() {
    let short = Duration::from_millis(400);
    let brief = World::plain(|profile| profile.longest_call = short).await;
    let longest = Duration::from_secs(40);
    let world = World::plain(|profile| profile.longest_call = longest).await;
    let mut client = foreign(&world);
    let told = |answer: tonic::Response<GetWolfResponse>| {
        let left = answer.into_inner().wolf.unwrap().state_message;
        Duration::from_millis(left.parse().unwrap())
    };
    let answer = client.get_wolf(with(get("wolves/ok"), "99999999H")).await.unwrap();
    assert!(told(answer) <= longest, "the handler is told of what it really has");
    let begun = Instant::now();
    let slow = foreign(&brief).get_wolf(with(get("wolves/slow"), "99999999H")).await;
    assert_eq!(reason(slow), Reason::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(30), "it sleeps for a minute");
    eventually(|| brief.probe.running(), |running| *running == 0).await;
    // Less is still less, and the default is bound as well.
    let answer = client.get_wolf(with(get("wolves/ok"), "20S")).await.unwrap();
    assert!(told(answer) <= Duration::from_secs(20));
    let answer = client.get_wolf(with(get("wolves/ok"), "")).await.unwrap();
    assert!(told(answer) <= longest);
    // Streams have what they ask for.
    let mut events = foreign(&brief)
        .watch_wolves(with(WatchWolvesRequest::default(), "99999999H"))
        .await
        .unwrap()
        .into_inner();
    let begun = Instant::now();
    while begun.elapsed() < 2 * short {
        assert!(events.message().await.unwrap().is_some());
    }
    drop(events);
    brief.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn time_shrinks_over_two_hops() {
    let far = World::plain(|_| {}).await;
    let wolves = Wolves {
        next: Some(far.channel().with_bearer(secret("wp_developer"))),
        ..Wolves::default()
    };
    let near = World::start(&ListenConfig::plain(ANY), |_| {}, wolves).await;
    let channel =
        near.channel().with_bearer(secret("wp_developer")).with_deadline(Duration::from_secs(3));
    let mut request = Request::new(get("wolves/relay"));
    request.metadata_mut().insert("x-request-id", "two-hops".parse().unwrap());
    let wolf =
        WolfServiceClient::new(channel).get_wolf(request).await.unwrap().into_inner().wolf.unwrap();
    let left: u64 = wolf.state_message.parse().unwrap();
    assert!(
        (1..3000).contains(&left),
        "the far hop had {left} ms of 3000, not its client's default"
    );
    assert_eq!(wolf.agent_version, "two-hops", "the request id goes along");
    near.stop().await;
    far.stop().await;
}

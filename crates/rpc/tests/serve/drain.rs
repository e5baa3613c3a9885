//! The end of a server: orderly where peers let it, bounded where they do not.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use wolfpack_proto::registry::v1::*;
use wolfpack_types::Reason;

use crate::world::{World, get, reason};

#[tokio::test]
async fn running_calls_finish_and_streams_are_told() {
    let world = World::plain(|profile| profile.stream_drain = Duration::from_millis(200)).await;
    let mut client = world.client();
    let mut events = client.watch_wolves(WatchWolvesRequest::default()).await.unwrap().into_inner();
    events.message().await.unwrap();
    let begun = Instant::now();
    world.context.supervisor.token().cancel();
    let status = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "cut without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason::<()>(Err(status)), Reason::ServerStopping);
    assert!(!world.health.is_serving());
    world.served.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(reason(client.get_wolf(get("wolves/ok")).await), Reason::DependencyUnavailable);
}

#[tokio::test]
async fn health_says_so_first() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let world = World::plain(|profile| profile.stream_drain = Duration::from_millis(300)).await;
    let request = HealthCheckRequest { service: "wolfpack.registry.v1.WolfService".into() };
    let mut statuses = HealthClient::new(world.channel().without_deadline())
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    world.context.supervisor.token().cancel();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    world.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_holds_a_drain_beyond_its_bound() {
    let world = World::plain(|profile| {
        profile.stream_drain = Duration::from_secs(3600);
        profile.drain = Duration::from_millis(500);
        profile.keepalive_interval = Duration::from_secs(3600);
        profile.first_byte_deadline = Duration::from_secs(3600);
    })
    .await;
    let mut client = world.client();
    // A stream nobody ends, one that never answered, a call that takes long,
    let mut events = client.watch_wolves(WatchWolvesRequest::default()).await.unwrap().into_inner();
    events.message().await.unwrap();
    let mut other = client.clone();
    let silent = tokio::spawn(async move {
        other.watch_wolves(WatchWolvesRequest { resume_revision: 77 }).await
    });
    let mut other = client.clone();
    let slow = tokio::spawn(async move { other.get_wolf(get("wolves/slow")).await });
    // a peer that says nothing, and one that stops after the preface.
    let idle = TcpStream::connect(world.address).await.unwrap();
    let mut prefaced = TcpStream::connect(world.address).await.unwrap();
    prefaced.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    crate::world::eventually(|| world.probe.running(), |running| *running == 3).await;

    let begun = Instant::now();
    world.context.supervisor.token().cancel();
    world.served.await.unwrap().unwrap();
    // Half a second is its bound; what would hold it holds it for an hour.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(world.probe.running(), 0, "handlers are dropped with their connections");
    assert_eq!(world.context.supervisor.running(), 0);
    assert!(silent.await.unwrap().is_err());
    assert!(slow.await.unwrap().is_err());
    drop((idle, prefaced, events));
}

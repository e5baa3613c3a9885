//! Load shedding and the rate limit.

use std::time::Duration;

use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::*;
use wolfpack_rpc::server::RateLimit;
use wolfpack_types::Reason;

use crate::world::{World, eventually, get, reason, secret};

#[tokio::test]
async fn what_would_have_to_wait_is_shed_at_once() {
    let world = World::plain(|profile| {
        profile.max_calls = 2;
        profile.max_streams = 1;
    })
    .await;
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut client = world.client();
        running.push(tokio::spawn(async move { client.get_wolf(get("wolves/slow")).await }));
    }
    eventually(|| world.probe.running(), |running| *running == 2).await;
    let status = world.client().get_wolf(get("wolves/ok")).await.unwrap_err();
    let fault = wolfpack_rpc::from_status(&status);
    assert_eq!(fault.reason, Reason::Overloaded);
    assert!(fault.retry_after.is_some(), "says when to come again");
    // Streams have places of their own, held until their end.
    let mut events =
        world.client().watch_wolves(WatchWolvesRequest::default()).await.unwrap().into_inner();
    events.message().await.unwrap();
    let second = world.client().watch_wolves(WatchWolvesRequest::default()).await;
    assert_eq!(reason(second.map(|_| ())), Reason::Overloaded);
    // A probe must learn that a busy server lives.
    let check = tonic_health::pb::HealthCheckRequest::default();
    assert!(
        tonic_health::pb::health_client::HealthClient::new(world.channel())
            .check(check)
            .await
            .is_ok()
    );
    for call in running {
        call.abort();
    }
    eventually(|| world.probe.running(), |running| *running == 1).await;
    assert!(world.client().get_wolf(get("wolves/ok")).await.is_ok(), "places come free");
    drop(events);
    eventually(|| world.probe.running(), |running| *running == 0).await;
    assert!(world.client().watch_wolves(WatchWolvesRequest::default()).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn each_principal_has_a_bucket_of_its_own() {
    let world =
        World::plain(|profile| profile.rate_limit = Some(RateLimit { per_second: 1, burst: 5 }))
            .await;
    let mut limited = 0;
    for _ in 0..10 {
        if let Err(status) = world.client().get_wolf(get("wolves/ok")).await {
            let fault = wolfpack_rpc::from_status(&status);
            assert_eq!(fault.reason, Reason::RateLimited);
            assert!(fault.retry_after.is_some_and(|after| after <= Duration::from_secs(1)));
            limited += 1;
        }
    }
    assert!((1..=5).contains(&limited), "{limited} of 10 with a burst of 5");
    let viewer = world.channel().with_bearer(secret("wp_viewer"));
    assert_eq!(
        reason(WolfServiceClient::new(viewer).get_wolf(get("wolves/ok")).await),
        Reason::RoleTooLow
    );
    world.stop().await;
}

//! Policy, errors, panics, request ids and traces, as calls.

use tonic::{Code, Request};
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::*;
use wolfpack_types::Reason;

use crate::world::{World, get, reason, secret};

#[tokio::test]
async fn the_policy_denies_by_default() {
    let world = World::plain(|_| {}).await;
    let client = |key: Option<&str>| {
        let channel = world.channel();
        WolfServiceClient::new(
            key.map_or_else(|| channel.clone(), |key| channel.with_bearer(secret(key))),
        )
    };
    assert!(client(Some("wp_developer")).get_wolf(get("wolves/ok")).await.is_ok());
    assert_eq!(reason(client(None).get_wolf(get("wolves/ok")).await), Reason::CredentialMissing);
    assert_eq!(
        reason(client(Some("wp_viewer")).get_wolf(get("wolves/ok")).await),
        Reason::RoleTooLow
    );
    assert_eq!(
        reason(client(Some("wp_nobody")).get_wolf(get("wolves/ok")).await),
        Reason::ApiKeyInvalid
    );
    assert_eq!(
        reason(client(Some("nonsense")).get_wolf(get("wolves/ok")).await),
        Reason::ApiKeyInvalid
    );
    // A served rpc without a row, and one that is not served at all.
    let list = ListWolvesRequest::default();
    assert_eq!(
        reason(client(Some("wp_developer")).list_wolves(list.clone()).await),
        Reason::CallerForbidden
    );
    assert_eq!(reason(client(None).list_wolves(list).await), Reason::CredentialMissing);
    assert_eq!(world.probe.ran(), 1, "no refused call reached a handler");
    // Open to anyone, but a wrong key is still a wrong key.
    assert!(client(None).register_wolf(RegisterWolfRequest::default()).await.is_ok());
    assert_eq!(
        reason(client(Some("wp_nobody")).register_wolf(RegisterWolfRequest::default()).await),
        Reason::ApiKeyInvalid
    );
    // Refusals are counted, under names of the table only.
    assert!(world.metric("rpc_server_calls_total", &["UNAUTHENTICATED"]) >= 4.0);
    assert!(world.metric("rpc_server_calls_total", &["_OTHER", "PERMISSION_DENIED"]) >= 1.0);
    assert!(world.metric("rpc_server_calls_total", &["GetWolf", "\"OK\""]) >= 1.0);
    world.stop().await;
}

#[tokio::test]
async fn forged_headers_of_ours_mean_nothing() {
    let world = World::plain(|_| {}).await;
    let mut request = Request::new(get("wolves/ok"));
    request.metadata_mut().insert("wolfpack-on-behalf-of", "wolves/forged".parse().unwrap());
    let answer = WolfServiceClient::new(world.channel()).get_wolf(request).await;
    assert_eq!(reason(answer), Reason::CredentialMissing);
    let mut request = Request::new(get("wolves/ok"));
    request.metadata_mut().insert("wolfpack-on-behalf-of", "wolves/forged".parse().unwrap());
    let wolf = world.client().get_wolf(request).await.unwrap().into_inner().wolf.unwrap();
    assert_eq!(wolf.display_name, "users/developer");
    world.stop().await;
}

#[tokio::test]
async fn errors_carry_a_reason_whoever_made_them() {
    let world = World::plain(|_| {}).await;
    let status = world.client().get_wolf(get("wolves/missing")).await.unwrap_err();
    let fault = wolfpack_rpc::from_status(&status);
    assert_eq!((status.code(), fault.reason), (Code::NotFound, Reason::WolfNotFound));
    assert_eq!(fault.resource.as_deref(), Some("wolves/missing"));
    let status = world.client().get_wolf(get("not a name")).await.unwrap_err();
    assert_eq!(wolfpack_rpc::from_status(&status).violations[0].field, "name");
    // Made by tonic, before any of our code.
    let big = get(&"x".repeat(5 << 20));
    let status = world.client().get_wolf(big).await.unwrap_err();
    assert_eq!(wolfpack_rpc::from_status(&status).reason, Reason::MessageTooLarge, "{status}");
    world.stop().await;
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_server_lives() {
    let world = World::plain(|_| {}).await;
    let mut client = world.client();
    for _ in 0..3 {
        let status = client.get_wolf(get("wolves/panic")).await.unwrap_err();
        assert_eq!(wolfpack_rpc::from_status(&status).reason, Reason::Internal);
        assert!(!status.message().contains("the test asked"), "{status}");
    }
    let mut events =
        client.watch_wolves(WatchWolvesRequest { resume_revision: 3 }).await.unwrap().into_inner();
    assert_eq!(events.message().await.unwrap().unwrap().revision, 1);
    assert_eq!(events.message().await.unwrap().unwrap().revision, 2);
    assert_eq!(
        reason(events.message().await),
        Reason::Internal,
        "a stream that panics ends with a status"
    );
    assert!(client.get_wolf(get("wolves/ok")).await.is_ok(), "on the same connection");
    assert_eq!(world.metric("rpc_server_panics_total", &[]), 4.0);
    assert!(world.metric("rpc_server_calls_total", &["INTERNAL"]) >= 4.0);
    world.stop().await;
}

#[tokio::test]
async fn request_ids_are_taken_made_and_echoed() {
    let world = World::plain(|_| {}).await;
    let ask = async |id: Option<&str>| {
        let mut request = Request::new(get("wolves/ok"));
        if let Some(id) = id {
            request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        }
        let answer = world.client().get_wolf(request).await.unwrap();
        let echoed = answer.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        let seen = answer.into_inner().wolf.unwrap().agent_version;
        assert_eq!(echoed, seen);
        seen
    };
    assert_eq!(ask(Some("build-7/step.2")).await, "build-7/step.2");
    let made = ask(None).await;
    assert_eq!(made.len(), 32);
    assert_ne!(ask(Some("bad id with spaces")).await, "bad id with spaces");
    // A refusal is found again by its id too.
    let mut request = Request::new(get("wolves/ok"));
    request.metadata_mut().insert("x-request-id", "refused-1".parse().unwrap());
    let status = WolfServiceClient::new(world.channel()).get_wolf(request).await.unwrap_err();
    assert_eq!(status.metadata().get("x-request-id").unwrap(), "refused-1");
    world.stop().await;
}

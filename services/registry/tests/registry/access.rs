//! Every rpc against every kind of caller, driven by the policy.

use http::uri::PathAndQuery;
use tonic::Status;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use wolfpack_proto::registry::v1::{Role, WatchRevocationsRequest};
use wolfpack_registry::POLICY;
use wolfpack_rpc::RpcChannel;
use wolfpack_types::{Principal, Reason};

use crate::fleet::{Identity, each, reason};

/// Calls an rpc with an empty message.
async fn call(channel: &RpcChannel, method: &'static str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<(), ()> = ProstCodec::default();
    let path = PathAndQuery::from_static(method);
    let answer = grpc.server_streaming(tonic::Request::new(()), path, codec).await?;
    answer.into_inner().message().await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_refuses_whoever_it_is_not_for() {
    each(|fleet| async move {
        let member = fleet.member(Role::Viewer).await;
        let wolf = fleet.join("").await;
        let wrong = wolfpack_registry::domain::api_key::ApiKeySecret::generate("test").reveal();
        let user = Principal::User {
            user: member.user.clone(),
            key: wolfpack_types::ApiKeyId::new(),
            project: member.project.clone(),
            role: wolfpack_types::Role::Viewer,
            platform_admin: false,
            expires: None,
        };
        let callers = [
            (fleet.nobody(), Principal::Anonymous),
            (fleet.bearer(&member.key), user),
            (fleet.service("scheduler"), Principal::Service("scheduler".to_owned())),
            (fleet.service("stranger"), Principal::Service("stranger".to_owned())),
            (wolf.channel.clone(), Principal::Wolf(wolf.id.clone())),
        ];
        let mut refused = 0;
        for row in POLICY {
            for (channel, principal) in &callers {
                let Err(expected) = row.allow.check(principal) else { continue };
                let status = call(channel, row.method).await.unwrap_err();
                assert_eq!(reason(&status), expected.reason, "{} by {principal}", row.method);
                refused += 1;
            }
            if !row.allow.anyone {
                let status = call(&fleet.bearer(&wrong), row.method).await.unwrap_err();
                assert_eq!(reason(&status), Reason::ApiKeyInvalid, "{}", row.method);
            }
        }
        assert!(refused > POLICY.len() * 2, "{refused}");
        fleet
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_bearer_is_not_made_good_by_a_certificate() {
    each(|fleet| async move {
        let channel = fleet.service("gateway").with_bearer(secrecy::SecretString::from("wp_wrong"));
        let watched =
            Identity::new(channel).watch_revocations(WatchRevocationsRequest {}).await.unwrap_err();
        assert_eq!(reason(&watched), Reason::ApiKeyInvalid);
        fleet
    })
    .await;
}

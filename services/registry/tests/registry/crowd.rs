//! Joining needs no credential; those who only begin to join hold up nobody.

use std::time::Duration;

use futures::future::join_all;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;
use wolfpack_proto::registry::v1::{JoinWolfRequest, JoinWolfResponse, WhoAmIRequest};
use wolfpack_rpc::{Profile, RpcChannel};

use crate::fleet::each;

/// Asks to join, for as long as can be, and sends no message; how that ends.
async fn begin(channel: RpcChannel) -> Code {
    let mut grpc = tonic::client::Grpc::new(channel);
    let mut request = Request::new(futures::stream::pending::<JoinWolfRequest>());
    request.metadata_mut().insert("grpc-timeout", "99999999H".parse().unwrap());
    let path = "/wolfpack.registry.v1.IdentityService/JoinWolf".parse().unwrap();
    let codec = ProstCodec::<JoinWolfRequest, JoinWolfResponse>::default();
    grpc.ready().await.unwrap();
    grpc.client_streaming(request, path, codec).await.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_begins_to_join_takes_no_place_of_others() {
    each(|fleet| async move {
        // What comes without a credential comes through the gateway, whose
        // certificate is none for its callers.
        let channel = fleet.service("gateway").without_deadline();
        let crowd = Profile::internal().max_calls + 8;
        let crowd: Vec<_> = (0..crowd).map(|_| tokio::spawn(begin(channel.clone()))).collect();
        // All are here when most of them were turned away.
        let turned = |crowd: &[tokio::task::JoinHandle<Code>]| {
            crowd.iter().filter(|call| call.is_finished()).count()
        };
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while turned(&crowd) < crowd.len() / 2 {
            // Whoever has a key is answered all the while.
            let answer = fleet.identity().who_am_i(WhoAmIRequest {}).await;
            assert!(answer.is_ok(), "{answer:?}");
            assert!(tokio::time::Instant::now() < end, "{} were turned away", turned(&crowd));
        }
        let ends = tokio::time::timeout(Duration::from_secs(60), join_all(crowd)).await;
        let ends: Vec<Code> = ends.expect("nobody stays").into_iter().map(Result::unwrap).collect();
        let of = |code| ends.iter().filter(|end| **end == code).count();
        let (shed, late) = (of(Code::ResourceExhausted), of(Code::DeadlineExceeded));
        assert!(shed > 0 && late > 0, "{shed} shed, {late} late");
        assert_eq!(shed + late, ends.len(), "{ends:?}");
        // And who means it joins.
        fleet.join("").await;
        fleet
    })
    .await;
}

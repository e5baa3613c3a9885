//! What tools see: reflection, the operator's listener, raw routes, the
//! fallback, forwarding, byte streams from elsewhere.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::SinkExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::body::Body;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use wolfpack_proto::registry::v1::wolf_service_client::WolfServiceClient;
use wolfpack_proto::registry::v1::wolf_service_server::WolfServiceServer;
use wolfpack_proto::registry::v1::*;
use wolfpack_rpc::server::admin::Admin;
use wolfpack_rpc::{Caller, Forward, ListenConfig, Peer, Profile, RpcChannel, Server};
use wolfpack_runtime::Context;
use wolfpack_types::{Principal, Reason};

use crate::world::{ANY, Keys, POLICY, Wolves, World, get, reason, secret};

async fn reflect(channel: RpcChannel, ask: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(futures::stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    answers.message().await.unwrap().unwrap().message_response.unwrap()
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_knows_error_details() {
    let world = World::plain(|_| {}).await;
    let MessageResponse::ListServicesResponse(list) =
        reflect(world.channel(), MessageRequest::ListServices(String::new())).await
    else {
        panic!("not a list")
    };
    let mut names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    names.sort();
    assert!(names.contains(&"wolfpack.registry.v1.WolfService".to_owned()), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    assert!(
        !names.iter().any(|name| name.contains("IdentityService")),
        "not served here: {names:?}"
    );
    let ask = MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".into());
    assert!(matches!(
        reflect(world.channel(), ask).await,
        MessageResponse::FileDescriptorResponse(_)
    ));

    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient as Alpha;
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_request::MessageRequest as Ask,
    };
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(Ask::FileContainingSymbol("wolfpack.registry.v1.WolfService".into())),
    };
    let mut answers = Alpha::new(world.channel())
        .server_reflection_info(futures::stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    assert!(answers.message().await.unwrap().is_some());
    world.stop().await;
}

async fn fetch(url: &str) -> (u16, String) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(url.parse().unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_operators_listener_speaks_plain_http() {
    let world = World::plain(|_| {}).await;
    world.client().get_wolf(get("wolves/ok")).await.unwrap();
    let admin = Admin::bind(ANY).await.unwrap();
    let address = admin.local_addr();
    let (context, health) = (world.context.clone(), world.health.clone());
    let served = tokio::spawn(async move { admin.serve(&context, health).await });
    let (status, metrics) = fetch(&format!("http://{address}/metrics")).await;
    assert_eq!(status, 200);
    assert!(metrics.contains("rpc_server_calls_total"), "{metrics}");
    assert_eq!(fetch(&format!("http://{address}/healthz")).await, (200, "ok\n".to_owned()));
    world.health.set("database", false).await;
    let (status, body) = fetch(&format!("http://{address}/healthz")).await;
    assert_eq!(status, 503);
    assert!(body.contains("database"), "{body}");
    assert_eq!(fetch(&format!("http://{address}/else")).await.0, 404);
    world.stop().await;
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_raw_service_stands_behind_all_layers_and_a_fallback_beside_them() {
    let context = Context::quiet("gateway");
    let listener = ListenConfig::plain(ANY).bind().await.unwrap();
    let address = listener.local_addr();
    let raw = tower::service_fn(|request: Request<Body>| async move {
        let caller = request.extensions().get::<Caller>().unwrap().principal.to_string();
        let mut response = Response::new(Full::new(Bytes::new()));
        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("0"));
        response.headers_mut().insert("x-caller", caller.parse().unwrap());
        Ok::<_, Infallible>(response)
    });
    let page = tower::service_fn(|request: Request<Body>| async move {
        let text = format!("page {}", request.uri().path());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    let server = Server::builder(&context, POLICY, Arc::new(Keys))
        .add_raw("/wolfpack.registry.v1.WolfService/GetWolf", raw)
        .fallback(page)
        .listen(listener, Profile::public())
        .build();
    let served = tokio::spawn(server.serve());
    assert_eq!(
        fetch(&format!("http://{address}/some/page")).await,
        (200, "page /some/page".to_owned())
    );
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let ask = async |key: Option<&str>| {
        let mut request =
            Request::post(format!("http://{address}/wolfpack.registry.v1.WolfService/GetWolf"))
                .header("content-type", "application/grpc");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        client.request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap()
    };
    assert_eq!(ask(Some("wp_developer")).await.headers()["x-caller"], "users/developer");
    assert_eq!(ask(Some("wp_viewer")).await.headers()["grpc-status"], "7");
    assert_eq!(ask(None).await.headers()["grpc-status"], "16");
    context.supervisor.token().cancel();
    served.await.unwrap().unwrap();
}

/// Gateway and service in a row: streams both ways, trailers and details stay.
#[tokio::test]
async fn calls_are_forwarded_as_they_came() {
    let world = World::plain(|_| {}).await;
    let context = Context::quiet("gateway");
    let listener = ListenConfig::plain(ANY).bind().await.unwrap();
    let url = format!("http://{}", listener.local_addr());
    let server = Server::builder(&context, &[], Arc::new(Keys))
        .fallback(Forward::to(&world.channel()))
        .listen(listener, Profile::public())
        .build();
    let served = tokio::spawn(server.serve());
    let channel = RpcChannel::to_gateway(&url, None, Some(secret("wp_developer"))).unwrap();
    let mut client = WolfServiceClient::new(channel.clone());
    let wolf = client.get_wolf(get("wolves/ok")).await.unwrap().into_inner().wolf.unwrap();
    assert_eq!(wolf.display_name, "users/developer", "the key went along");
    let status = client.get_wolf(get("wolves/missing")).await.unwrap_err();
    assert_eq!(wolfpack_rpc::from_status(&status).resource.as_deref(), Some("wolves/missing"));

    let (mut beats, requests) = futures::channel::mpsc::channel(4);
    let mut answers = WolfServiceClient::new(channel.without_deadline())
        .heartbeat(requests)
        .await
        .unwrap()
        .into_inner();
    for sequence in 1..=100 {
        let beat = HeartbeatRequest { sequence, ..HeartbeatRequest::default() };
        beats.send(beat).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().sequence, sequence);
    }
    drop(beats);
    assert!(
        answers.message().await.unwrap().is_none(),
        "half-close goes through, then a clean end"
    );
    // The far service goes away: a reason, not a hang.
    world.stop().await;
    assert_eq!(reason(client.get_wolf(get("wolves/ok")).await), Reason::DependencyUnavailable);
    context.supervisor.token().cancel();
    served.await.unwrap().unwrap();
}

/// As over a tunnel: no socket at all, the peer known by what carried it.
#[tokio::test]
async fn streams_from_elsewhere_are_served_with_their_peer() {
    let context = Context::quiet("sandbox-agent");
    let (accepted, incoming) = futures::channel::mpsc::channel(4);
    let server = Server::builder(&context, POLICY, Arc::new(Keys))
        .add_service(WolfServiceServer::new(Wolves::default()))
        .incoming(incoming, Profile::tunnelled())
        .build();
    let served = tokio::spawn(server.serve());
    let channel = RpcChannel::over("sandboxes/x", move || {
        let mut accepted = accepted.clone();
        async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let peer = Peer::authenticated(Principal::Service("sandbox-manager".into()));
            accepted.send(Ok((far, peer))).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(near)
        }
    });
    let wolf = WolfServiceClient::new(channel.clone())
        .get_wolf(get("wolves/ok"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(wolf.wolf.unwrap().display_name, "services/sandbox-manager");
    context.supervisor.token().cancel();
    served.await.unwrap().unwrap();
    drop(channel);
}

#[tokio::test]
async fn a_connectors_fault_reaches_the_caller_with_its_reason() {
    let channel = RpcChannel::over("wolves/x", || async {
        let fault = wolfpack_types::Fault::new(Reason::WolfAway, "the wolf is away; wait for it");
        Err::<tokio::io::DuplexStream, _>(fault)
    });
    let answer = WolfServiceClient::new(channel).get_wolf(get("wolves/ok")).await;
    assert_eq!(reason(answer), Reason::WolfAway);
}

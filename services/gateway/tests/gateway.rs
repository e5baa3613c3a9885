//! The gateway as a whole: real sockets, real TLS, services behind that are
//! fakes on the same kit.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod ingress;
mod rig;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rig::{KEY, Rig, TestCa};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use wolfpack_gateway::routes::{PUBLIC, WITHOUT_CREDENTIAL};
use wolfpack_gateway::{App, Config};
use wolfpack_proto::registry::v1::identity_service_client::IdentityServiceClient;
use wolfpack_proto::registry::v1::{JoinWolfRequest, JoinWolfResponse};
use wolfpack_proto::sandbox::v1::desktop_service_client::DesktopServiceClient;
use wolfpack_proto::sandbox::v1::{GetScreenshotRequest, TunnelPath};
use wolfpack_proto::tunnel::v1::dial_service_client::DialServiceClient;
use wolfpack_proto::tunnel::v1::{DialRequest, DialResponse, dial_request, dial_response};
use wolfpack_rpc::client::RpcChannel;
use wolfpack_rpc::error::from_status;
use wolfpack_runtime::Context;
use wolfpack_types::{Principal, Reason};

fn shot(sandbox: &str) -> GetScreenshotRequest {
    GetScreenshotRequest { sandbox: format!("sandboxes/{sandbox}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_as_it_came() {
    let rig = Rig::new().await;
    let mut desktops =
        DesktopServiceClient::new(rig.channel(Some(KEY))).max_decoding_message_size(16 << 20);
    let mut request = Request::new(shot("here"));
    request.set_timeout(Duration::from_secs(7));
    request.metadata_mut().insert("x-kept", "yes".parse().unwrap());
    request.metadata_mut().insert("wolfpack-on-behalf-of", "wolves/forged".parse().unwrap());
    let answer = desktops.get_screenshot(request).await.unwrap();
    assert_eq!(answer.get_ref().image.len(), 6 << 20);
    assert_eq!(answer.get_ref().via(), TunnelPath::Wolf);

    let seen = rig.seen("sandbox-manager");
    let headers = seen.headers.lock()[0].clone();
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(headers["x-kept"], "yes");
    assert!(
        !headers.contains_key("wolfpack-on-behalf-of"),
        "our own headers are not taken from outside"
    );
    assert!(
        matches!(&seen.principals.lock()[0], Principal::User { user, .. } if user.as_str() == "ada")
    );
    let left = seen.left.lock()[0].unwrap();
    assert!(left <= Duration::from_secs(7) && left > Duration::from_secs(2), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_their_details() {
    let rig = Rig::new().await;
    let mut desktops = DesktopServiceClient::new(rig.channel(Some(KEY)));
    let status = desktops.get_screenshot(shot("gone")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let fault = from_status(&status);
    assert_eq!(fault.reason, Reason::SandboxNotFound);
    assert_eq!(fault.metadata["hint"], "list them");
    assert_eq!(fault.resource.as_deref(), Some("sandboxes/gone"));
    assert_eq!(fault.violations[0].field, "sandbox");
    assert_eq!(fault.retry_after, Some(Duration::from_secs(3)));

    let mut desktops = DesktopServiceClient::new(rig.channel(Some("wp_wrong")));
    let status = desktops.get_screenshot(shot("here")).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::ApiKeyInvalid, "the service behind says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_as_the_gateway() {
    let rig = Rig::new().await;
    let mut desktops = DesktopServiceClient::new(rig.channel(None));
    let status = desktops.get_screenshot(shot("here")).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::CredentialMissing);
    assert!(rig.seen("sandbox-manager").principals.lock().is_empty(), "it never got there");
    // Joining needs no credential but the token in the message.
    let mut identities = IdentityServiceClient::new(rig.channel(None));
    let status = identities.join_wolf(JoinWolfRequest::default()).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::JoinTokenInvalid);
}

/// Asks to join, for as long as can be, and sends no message; how that ends.
async fn begin_to_join(channel: RpcChannel) -> Code {
    let mut grpc = tonic::client::Grpc::new(channel);
    let mut request = Request::new(futures::stream::pending::<JoinWolfRequest>());
    request.metadata_mut().insert("grpc-timeout", "99999999H".parse().unwrap());
    let path = WITHOUT_CREDENTIAL[0].parse().unwrap();
    let codec = tonic_prost::ProstCodec::<JoinWolfRequest, JoinWolfResponse>::default();
    grpc.ready().await.unwrap();
    grpc.client_streaming(request, path, codec).await.unwrap_err().code()
}

/// Four connections of 256 calls are as many as all unary calls together.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_shut_out_nobody_who_has_a_key() {
    let rig = Rig::new().await;
    let mut crowd = Vec::new();
    for _ in 0..4 {
        let channel = rig.channel(None).without_deadline();
        crowd.extend((0..256).map(|_| tokio::spawn(begin_to_join(channel.clone()))));
    }
    let mut desktops = DesktopServiceClient::new(rig.channel(Some(KEY)));
    let end = Instant::now() + Duration::from_secs(60);
    // Most are turned away at once; whoever has a key is answered all the while.
    while crowd.iter().filter(|call| call.is_finished()).count() < crowd.len() / 2 {
        let status = desktops.get_screenshot(shot("gone")).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        assert!(Instant::now() < end, "they stay");
    }
    let all = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(crowd));
    let ends: Vec<Code> =
        all.await.expect("nobody stays").into_iter().map(Result::unwrap).collect();
    let of = |code| ends.iter().filter(|end| **end == code).count();
    let (shed, late) = (of(Code::ResourceExhausted), of(Code::DeadlineExceeded));
    assert!(shed > 0 && late > 0, "{shed} shed, {late} late");
    assert_eq!(shed + late, ends.len(), "{ends:?}");
    let mut identities = IdentityServiceClient::new(rig.channel(None));
    let status = identities.join_wolf(JoinWolfRequest::default()).await.unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::JoinTokenInvalid, "joining works again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_passes_through_and_ends_the_call() {
    let rig = Rig::new().await;
    let mut desktops = DesktopServiceClient::new(rig.channel(Some(KEY)));
    let mut request = Request::new(shot("slow"));
    request.set_timeout(Duration::from_millis(400));
    let begin = Instant::now();
    let status = desktops.get_screenshot(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

fn frame(text: &str) -> DialRequest {
    DialRequest { frame: Some(dial_request::Frame::Data(text.to_owned().into())) }
}

async fn text(frames: &mut Streaming<DialResponse>) -> String {
    let answer = tokio::time::timeout(Duration::from_secs(5), frames.message()).await.unwrap();
    match answer.unwrap().unwrap().frame {
        Some(dial_response::Frame::Data(data)) => String::from_utf8(data.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_both_ways_and_half_close() {
    let rig = Rig::new().await;
    let mut dials = DialServiceClient::new(rig.channel(Some(KEY)).without_deadline());
    let (frames, receiver) = mpsc::channel(1);
    frames.send(frame("one")).await.unwrap();
    let mut answers = dials.dial(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    // Each answer comes before the next request is sent: nothing is held back.
    assert_eq!(text(&mut answers).await, "one");
    frames.send(frame("two")).await.unwrap();
    assert_eq!(text(&mut answers).await, "two");
    drop(frames);
    assert_eq!(text(&mut answers).await, "2 frames", "it answers after the half-close");
    let status = answers.message().await.unwrap_err();
    let fault = from_status(&status);
    assert_eq!(fault.reason, Reason::ConnectionReset, "trailers come through");
    assert_eq!(fault.metadata["count"], "2");
    assert_eq!(*rig.seen("tunnel-broker").cancelled.borrow(), 0);
}

async fn cancelled(rig: &Rig, service: &str) {
    let mut cancelled = rig.seen(service).cancelled.subscribe();
    tokio::time::timeout(Duration::from_secs(5), cancelled.wait_for(|count| *count == 1))
        .await
        .expect("the cancel arrives")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_ends_behind() {
    let rig = Rig::new().await;
    let mut desktops = DesktopServiceClient::new(rig.channel(Some(KEY)));
    let call = tokio::spawn(async move { desktops.get_screenshot(shot("slow")).await });
    rig.until("the call arrives", || !rig.seen("sandbox-manager").headers.lock().is_empty()).await;
    assert_eq!(*rig.seen("sandbox-manager").cancelled.borrow(), 0);
    call.abort();
    cancelled(&rig, "sandbox-manager").await;
}

/// By hand, because a generated client sends no reset while its request
/// stream is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_ends_behind() {
    let rig = Rig::new().await;
    let tcp = tokio::net::TcpStream::connect(rig.plaintext()).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://localhost/wolfpack.tunnel.v1.DialService/Dial")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {KEY}"))
        .body(())
        .unwrap();
    let (response, mut sender) =
        client.ready().await.unwrap().send_request(request, false).unwrap();
    // A frame of gRPC: not compressed, five bytes, field 2 with "one".
    sender.send_data(b"\0\0\0\0\x05\x12\x03one"[..].into(), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    let echo: bytes::Bytes = body.data().await.unwrap().unwrap();
    assert_eq!(&echo[5..], b"\x12\x03one");
    assert_eq!(*rig.seen("tunnel-broker").cancelled.borrow(), 0);
    sender.send_reset(h2::Reason::CANCEL);
    cancelled(&rig, "tunnel-broker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_are_not_there() {
    let rig = Rig::new().await;
    let mut grpc = tonic::client::Grpc::new(rig.channel(Some(KEY)));
    for path in ["/no.such.Service/Call", "/wolfpack.agent.v1.WolfRuntimeService/CreateSandbox"] {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
        let status = grpc
            .unary(Request::new(HealthCheckRequest::default()), path.parse().unwrap(), codec)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert_eq!(from_status(&status).reason, Reason::RouteNotFound, "{path}");
    }
    let (status, head, body) = rig.http(rig.plaintext(), "/nothing", &[]).await;
    assert_eq!(status, 404);
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["reason"], "ROUTE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_public_services_and_no_others() {
    let rig = Rig::new().await;
    let wanted: BTreeSet<String> = PUBLIC
        .iter()
        .map(|public| public.name.to_owned())
        .chain(["grpc.health.v1.Health".to_owned()])
        .collect();
    macro_rules! check {
        ($version:ident) => {{
            use pb::server_reflection_request::MessageRequest;
            use pb::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version as pb;
            let mut client =
                pb::server_reflection_client::ServerReflectionClient::new(rig.channel(None));
            let ask = |question| pb::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(question),
            };
            let questions = vec![
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".into())),
                ask(MessageRequest::FileContainingSymbol(
                    "wolfpack.sandbox.v1.SandboxService".into(),
                )),
                ask(MessageRequest::FileContainingSymbol(
                    "wolfpack.agent.v1.WolfRuntimeService".into(),
                )),
            ];
            let mut answers = client
                .server_reflection_info(futures::stream::iter(questions))
                .await
                .unwrap()
                .into_inner();
            let Some(MessageResponse::ListServicesResponse(list)) =
                answers.message().await.unwrap().unwrap().message_response
            else {
                panic!("no list")
            };
            let listed: BTreeSet<String> =
                list.service.into_iter().map(|service| service.name).collect();
            assert_eq!(listed, wanted);
            for symbol in ["google.rpc.ErrorInfo", "wolfpack.sandbox.v1.SandboxService"] {
                let answer = answers.message().await.unwrap().unwrap().message_response;
                assert!(
                    matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))),
                    "{symbol}"
                );
            }
            assert!(answers.message().await.is_err(), "what is internal is not described");
        }};
    }
    check!(v1);
    check!(v1alpha);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_that_of_the_services_behind() {
    let rig = Rig::new().await;
    let channel = rig.channel(None);
    let check = |service: &str| {
        let mut client = HealthClient::new(channel.clone());
        let request = HealthCheckRequest { service: service.to_owned() };
        async move { client.check(request).await.map(|answer| answer.into_inner().status()) }
    };
    let wolves = "wolfpack.registry.v1.WolfService";
    let explain = "wolfpack.scheduler.v1.SchedulerService";
    for name in ["", wolves, explain] {
        assert_eq!(check(name).await.unwrap(), ServingStatus::Serving, "{name:?}");
    }
    assert_eq!(check("no.such.Service").await.unwrap_err().code(), Code::NotFound);
    let (status, _, body) = rig.http(rig.plaintext(), "/healthz", &[]).await;
    assert_eq!(status, 200);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["status"], "serving");

    let scheduler = &rig.upstreams.0["scheduler"].context.supervisor;
    scheduler.shutdown(Duration::from_secs(5)).await;
    rig.until("the gateway notices", || !rig.health.is_serving()).await;
    // The board tells its reporter right after it knows.
    for _ in 0..100 {
        if check("").await.unwrap() == ServingStatus::NotServing {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(check("").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(check(explain).await.unwrap(), ServingStatus::NotServing);
    assert_eq!(check(wolves).await.unwrap(), ServingStatus::Serving);
    let (status, _, body) = rig.http(rig.plaintext(), "/healthz", &[]).await;
    assert_eq!(status, 503);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["services"]["scheduler"], "not_serving");
    assert_eq!(body["services"]["registry"], "serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screenshot_for_curl() {
    let rig = Rig::new().await;
    let at = rig.plaintext();
    let bearer = format!("Bearer {KEY}");
    let with = [("authorization", bearer.as_str())];
    let (status, head, body) = rig.http(at, "/v1/sandboxes/here/screenshot", &with).await;
    assert_eq!(status, 200, "{head}");
    assert_eq!(body.len(), 6 << 20);
    assert!(head.contains("content-type: image/png"), "never what the sandbox says: {head}");
    assert!(head.contains("wolfpack-via: wolf"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(!head.contains("set-cookie"), "{head}");

    let json = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap();
    let (status, head, body) = rig.http(at, "/v1/sandboxes/gone/screenshot", &with).await;
    assert_eq!((status, json(&body)["reason"].as_str()), (404, Some("SANDBOX_NOT_FOUND")));
    assert_eq!(json(&body)["metadata"]["hint"], "list them");
    assert!(head.contains("retry-after: 3"), "{head}");
    let (status, head, body) = rig.http(at, "/v1/sandboxes/here/screenshot", &[]).await;
    assert_eq!((status, json(&body)["reason"].as_str()), (401, Some("CREDENTIAL_MISSING")));
    assert!(head.contains("www-authenticate: bearer"), "{head}");
    let wrong = [("authorization", "Bearer wp_wrong")];
    let (status, _, body) = rig.http(at, "/v1/sandboxes/here/screenshot", &wrong).await;
    assert_eq!((status, json(&body)["reason"].as_str()), (401, Some("API_KEY_INVALID")));
    let (status, _, body) = rig.http(at, "/v1/sandboxes/A%2F..%2Fb/screenshot", &with).await;
    assert_eq!((status, json(&body)["reason"].as_str()), (400, Some("REQUEST_INVALID")));
    let (status, _, body) = rig.http(at, "/v1/sandboxes/slow/screenshot", &with).await;
    assert_eq!((status, json(&body)["reason"].as_str()), (504, Some("DEADLINE_EXCEEDED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_this_machine_and_show_every_service() {
    let rig = Rig::new().await;
    for address in [rig.plaintext(), rig.addresses.metrics.unwrap()] {
        let (status, _, body) = rig.http(address, "/metrics", &[]).await;
        assert_eq!(status, 200);
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("service=\"gateway\""), "{body}");
        assert!(body.contains("elsewhere_things_total{service=\"elsewhere\""), "{body}");
    }
    let (status, _, _) =
        rig.http(rig.addresses.metrics.unwrap(), "/v1/sandboxes/here/screenshot", &[]).await;
    assert_eq!(status, 404, "operators get no sandboxes there");
    let mut grpc = tonic::client::Grpc::new(rig.channel(None));
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let status = grpc
        .unary(Request::new(HealthCheckRequest::default()), "/metrics".parse().unwrap(), codec)
        .await
        .unwrap_err();
    assert_eq!(from_status(&status).reason, Reason::RouteNotFound, "users get no metrics");
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_never_leaves_the_machine_unasked() {
    let ca = TestCa::new();
    let config = |beyond| Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        plaintext: Some("0.0.0.0:0".parse().unwrap()),
        plaintext_beyond_loopback: beyond,
        tls: Some(ca.service("gateway")),
        ..Config::default()
    };
    let refused = App::build(config(false), Context::quiet("gateway")).await;
    assert!(refused.err().unwrap().to_string().contains("plaintext_beyond_loopback"));
    assert!(App::build(config(true), Context::quiet("gateway")).await.is_ok());
}

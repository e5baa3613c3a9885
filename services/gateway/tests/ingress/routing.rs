//! What is under a domain of sandboxes never meets anything of the gateway's.

use bytes::Bytes;
use http::Request;

use super::http2;
use super::raw::{HOST, client, get, header, mirror, rig};
use crate::rig::KEY;

/// Paths that mean something on the gateway's own host.
const OURS: &[&str] = &[
    "/",
    "/healthz",
    "/metrics",
    "/v1/sandboxes/here/screenshot",
    "/v1/sandboxes/box/ports/8080/x",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/wolfpack.sandbox.v1.DesktopService/GetScreenshot",
    "/wolfpack.registry.v1.IdentityService/JoinWolf",
    "/wolfpack.tunnel.v1.DialService/Dial",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxs_host_is_the_sandboxs_whatever_the_path() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    for path in OURS {
        wire.send(get(path)).await;
        let (status, head, seen) = wire.answer().await;
        assert_eq!(status, 200, "{path} {head}");
        assert!(seen.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{path}: {seen}");
        assert!(header(&head, "grpc-status").is_none(), "{path} {head}");
        // Nor does it without a key, where some of ours answer.
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n")).await;
        let (status, head, body) = wire.answer().await;
        assert_eq!(status, 401, "{path} {head}");
        assert!(body.contains("CREDENTIAL_MISSING"), "{path} {body}");
    }
    assert!(rig.seen("sandbox-manager").headers.lock().is_empty(), "it never got there");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_too() {
    let rig = rig(mirror).await;
    let mut client = http2::client(&rig).await;
    for path in OURS {
        for kind in ["text/plain", "application/grpc"] {
            let request = Request::post(format!("http://{HOST}{path}"))
                .header("content-type", kind)
                .header("te", "trailers")
                .header("authorization", format!("Bearer {KEY}"))
                .body(())
                .unwrap();
            let (head, body) =
                http2::call(&mut client, request, Bytes::from_static(b"\0\0\0\0\0")).await;
            assert_eq!(head.status, 200, "{path}");
            assert!(!head.headers.contains_key("grpc-status"), "{path}");
            let seen = String::from_utf8(body.to_vec()).unwrap();
            assert!(seen.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{path}: {seen}");
        }
    }
    assert!(rig.seen("registry").headers.lock().is_empty());
    assert!(rig.seen("sandbox-manager").headers.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_host_stays_ours_and_takes_no_connect() {
    let rig = rig(mirror).await;
    let mut client = http2::client(&rig).await;
    let request = Request::get("http://localhost/healthz").body(()).unwrap();
    let (head, body) = http2::call(&mut client, request, Bytes::new()).await;
    assert_eq!(head.status, 200);
    assert!(String::from_utf8(body.to_vec()).unwrap().contains("serving"));
    let mut request = Request::new(());
    *request.method_mut() = http::Method::CONNECT;
    *request.uri_mut() = "http://localhost/wolfpack.tunnel.v1.DialService/Dial".parse().unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (response, _stream) = client.send_request(request, false).unwrap();
    assert_eq!(response.await.unwrap().status(), 405);
}

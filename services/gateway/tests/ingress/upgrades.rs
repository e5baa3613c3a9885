//! WebSockets, which are bytes from the answer on.

use bytes::Bytes;
use http::{Method, Request};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::http2;
use super::raw::{HOST, SOON, Wire, client, head, header, rig};
use crate::rig::KEY;

const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
connection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nx-own: kept\r\n\r\n";

/// Takes an upgrade, greets, echoes until the client has finished, then says so.
async fn echo(mut wire: Wire) {
    let asked = wire.head().await.to_ascii_lowercase();
    assert_eq!(header(&asked, "upgrade"), Some("websocket"), "{asked}");
    assert_eq!(header(&asked, "connection"), Some("upgrade"), "{asked}");
    assert!(header(&asked, "sec-websocket-key").is_some(), "{asked}");
    assert!(!asked.contains("wp_") && !asked.contains("transfer-encoding"), "{asked}");
    // The first bytes come in one piece with the answer.
    wire.send(format!("{ACCEPT}hello")).await;
    let all = wire.rest().await.unwrap();
    wire.send([b"got ".as_slice(), &all].concat()).await;
    wire.stream.shutdown().await.unwrap();
}

fn upgrade() -> String {
    head("GET /socket")
        + "upgrade: websocket\r\nconnection: keep-alive, Upgrade\r\n\
           sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_becomes_bytes_with_two_ends() {
    let rig = rig(echo).await;
    let mut wire = client(&rig).await;
    wire.send(upgrade()).await;
    let answer = wire.head().await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert_eq!(header(&answer, "upgrade"), Some("websocket"));
    assert_eq!(header(&answer, "connection"), Some("upgrade"));
    assert_eq!(header(&answer, "sec-websocket-accept"), Some("s3pplmbitxaq9kygzzhzrbk+xoo="));
    assert_eq!(header(&answer, "x-own"), Some("kept"));
    assert_eq!(wire.exactly(5).await, b"hello");
    wire.send([0x81, 0x02, b'h', b'i', 0xff, 0x00]).await;
    wire.stream.shutdown().await.unwrap();
    let rest = wire.rest().await.unwrap();
    assert_eq!(rest, b"got \x81\x02hi\xff\x00", "the answer comes after the half-close");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_by_an_extended_connect() {
    let rig = rig(echo).await;
    let mut client = http2::client(&rig).await;
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://{HOST}/socket"))
        .header("authorization", format!("Bearer {KEY}"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (response, mut sender) = client.send_request(request, false).unwrap();
    let response = timeout(SOON, response).await.expect("an answer").unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-own"], "kept");
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut body = response.into_body();
    let mut got = Vec::new();
    sender.send_data(Bytes::from_static(b"over h2"), true).unwrap();
    while let Some(data) = timeout(SOON, body.data()).await.expect("bytes") {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        got.extend_from_slice(&data);
    }
    assert_eq!(String::from_utf8(got).unwrap(), "hellogot over h2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_go_on_answers_as_ever() {
    let rig = rig(|mut wire| async move {
        let head = wire.head().await;
        let status = if head.contains("/no") { "426 Upgrade Required" } else { "200 OK" };
        wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno")).await;
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(upgrade().replace("/socket", "/no")).await;
    let (status, _, body) = wire.answer().await;
    assert_eq!((status, body.as_str()), (426, "no"));
    // To an HTTP/2 client a good answer would mean an open socket.
    let mut client = http2::client(&rig).await;
    for (path, expected) in [("/no", 426), ("/yes", 502)] {
        let mut request = http2::request("CONNECT", path).body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, _sender) = client.send_request(request, false).unwrap();
        assert_eq!(timeout(SOON, response).await.unwrap().unwrap().status(), expected, "{path}");
    }
    let mut request = http2::request("CONNECT", "/").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("connect-udp"));
    let (response, _sender) = client.send_request(request, false).unwrap();
    assert_eq!(timeout(SOON, response).await.unwrap().unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_that_goes_away_takes_the_other_along() {
    let (gone, mut goes) = tokio::sync::mpsc::channel(1);
    let rig = rig(move |mut wire| {
        let gone = gone.clone();
        async move {
            let stay = wire.head().await.contains("/stay");
            wire.send(ACCEPT).await;
            if stay {
                gone.send(wire.gone().await).await.unwrap();
            }
        }
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(upgrade().replace("/socket", "/leave")).await;
    wire.head().await;
    assert!(wire.gone().await, "the target left");
    let mut wire = client(&rig).await;
    wire.send(upgrade().replace("/socket", "/stay")).await;
    wire.head().await;
    drop(wire);
    assert!(timeout(SOON * 2, goes.recv()).await.unwrap().unwrap(), "the client left");
}

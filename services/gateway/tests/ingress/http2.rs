//! HTTP/2 in.

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::response::Parts;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::raw::{HOST, SOON, header, rig};
use crate::rig::{KEY, Rig};

pub(super) async fn client(rig: &Rig) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(rig.plaintext()).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

pub(super) async fn call(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> (Parts, Bytes) {
    let (response, mut sender) = client.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        sender.send_data(body, true).unwrap();
    }
    let (head, mut body) = timeout(SOON, response).await.expect("an answer").unwrap().into_parts();
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (head, all.freeze())
}

pub(super) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://{HOST}{path}"))
        .header("authorization", format!("Bearer {KEY}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_answer_come_through_and_a_body_of_unknown_length_is_chunked() {
    let rig = rig(|mut wire| async move {
        let head = wire.head().await.to_ascii_lowercase();
        assert_eq!(header(&head, "te"), Some("trailers"), "{head}");
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        assert_eq!(wire.chunked().await, b"up");
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n").await;
        wire.send("4\r\ndown\r\n0\r\nx-sum: 7\r\n\r\n").await;
    })
    .await;
    let mut client = client(&rig).await;
    // Even that of a GET, which is seldom, is not left out.
    let request = request("GET", "/").header("te", "trailers").body(()).unwrap();
    let (response, mut sender) = client.send_request(request, false).unwrap();
    sender.send_data(Bytes::from_static(b"up"), true).unwrap();
    let mut body = timeout(SOON, response).await.unwrap().unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "down");
    assert!(body.data().await.is_none());
    let trailers: HeaderMap = body.trailers().await.unwrap().expect("trailers");
    assert_eq!(trailers["x-sum"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_breaks_resets_the_stream() {
    let rig = rig(|mut wire| async move {
        wire.head().await;
        // Without a length nobody but us can tell that it is half.
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    })
    .await;
    let mut client = client(&rig).await;
    let (response, _) = client.send_request(request("GET", "/").body(()).unwrap(), true).unwrap();
    let mut body = timeout(SOON, response).await.unwrap().unwrap().into_body();
    let mut got = BytesMut::new();
    let error = loop {
        match timeout(SOON, body.data()).await.unwrap() {
            Some(Ok(data)) => got.extend_from_slice(&data),
            Some(Err(error)) => break error,
            None => panic!("half of a body passed for all of it"),
        }
    };
    assert!(error.is_reset(), "{error}");
    assert!(b"half".starts_with(&got), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_never_looks_whole() {
    let (seen, mut ended) = tokio::sync::mpsc::channel(1);
    let rig = rig(move |mut wire| {
        let seen = seen.clone();
        async move {
            wire.head().await;
            let rest = wire.rest().await.unwrap_or_default();
            seen.send(String::from_utf8(rest).unwrap()).await.unwrap();
        }
    })
    .await;
    let mut client = client(&rig).await;
    let (_response, mut sender) =
        client.send_request(request("POST", "/").body(()).unwrap(), false).unwrap();
    sender.send_data(Bytes::from_static(b"half"), false).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    sender.send_reset(h2::Reason::CANCEL);
    let got = timeout(SOON, ended.recv()).await.expect("the target hears of it").unwrap();
    assert!(!got.contains("0\r\n\r\n"), "{got:?}");
}

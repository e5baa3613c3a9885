//! Requests that two readers could read in two ways, and what is about one hop.

use super::raw::{HOST, client, get, head, header, mirror, rig};
use crate::rig::KEY;

#[tokio::test(flavor = "multi_thread")]
async fn odd_framing_is_refused_or_made_plain() {
    let rig = rig(mirror).await;
    let start = head("POST /first");
    let chunk = "5\r\nhello\r\n0\r\n\r\n";
    for refused in [
        format!("{start}content-length: 3\r\ncontent-length: 5\r\n\r\nhello"),
        format!("{start}content-length: 5, 3\r\n\r\nhello"),
        format!("{start}content-length: +5\r\n\r\nhello"),
        format!("{start}transfer-encoding: chunked, identity\r\n\r\n{chunk}"),
        format!("{start}transfer-encoding: xchunked\r\n\r\n{chunk}"),
        format!("{start}x-folded: a\r\n b\r\ncontent-length: 0\r\n\r\n"),
        format!("{start}bad name: a\r\ncontent-length: 0\r\n\r\n"),
        format!("{start}x-nul: a\0b\r\ncontent-length: 0\r\n\r\n"),
        format!("{start}host: {HOST}\r\ncontent-length: 0\r\n\r\n"),
        format!("{start}host: localhost\r\ncontent-length: 0\r\n\r\n"),
        head("GET http://localhost/healthz") + "\r\n",
        head("GET http://8081--box.localhost/") + "\r\n",
        format!("{start}authorization: Basic x\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let mut wire = client(&rig).await;
        wire.send(&refused).await;
        let (status, ..) = wire.answer().await;
        assert_eq!(status, 400, "{refused}");
    }
    assert_eq!(rig.sandboxes().dialed(), Vec::<String>::new(), "no target saw any of them");

    // Of two lengths the chunks count (RFC 9112, 6.3), for us, and for the target, which is
    // told of them alone, and the connection takes no other request: there is none in the first.
    let smuggled = format!("0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    for lengths in [
        format!("content-length: {}\r\ntransfer-encoding: chunked", smuggled.len()),
        format!("transfer-encoding: chunked\r\ncontent-length: {}", smuggled.len()),
    ] {
        let mut wire = client(&rig).await;
        wire.send(format!("{start}{lengths}\r\n\r\n{smuggled}")).await;
        let (status, _, seen) = wire.answer().await;
        let seen = seen.to_ascii_lowercase();
        assert_eq!((status, header(&seen, "content-length")), (200, None), "{seen}");
        assert!(!seen.contains("smuggled"), "{seen}");
        let rest = String::from_utf8(wire.rest().await.unwrap_or_default()).unwrap();
        assert_eq!(rest, "", "what follows is no request of this connection");
    }
    // Bad chunks break the request off; the target never sees it whole.
    let mut wire = client(&rig).await;
    wire.send(format!("{start}transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n")).await;
    let got = wire.rest().await.unwrap_or_default();
    assert!(!String::from_utf8_lossy(&got).starts_with("HTTP/1.1 2"), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_gets_the_request_as_it_is_and_nothing_of_ours() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    let request = head("POST /a/../b%2F?x=1&wp_link=wpl_a.b.c&y=%20")
        + "cookie: a=1; wp_link=wpl_a.b.c; b=2\r\n\
           x-forwarded-for: 1.2.3.4\r\nx-forwarded-host: evil\r\nforwarded: for=1.2.3.4\r\n\
           x-own: kept\r\nx-hop: gone\r\nconnection: x-hop, keep-alive\r\n\
           upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\
           proxy-authorization: Basic x\r\nkeep-alive: timeout=5\r\n\
           content-length: 4\r\n\r\nbody";
    wire.send(request).await;
    let (status, _, seen) = wire.answer().await;
    assert_eq!(status, 200);
    assert!(seen.starts_with("POST /a/../b%2F?x=1&y=%20 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\nbody"), "{seen}");
    let seen = seen.to_ascii_lowercase();
    for (name, expected) in [
        ("host", Some(HOST)),
        ("cookie", Some("a=1; b=2")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-host", Some(HOST)),
        ("x-forwarded-proto", Some("http")),
        ("via", Some("1.1 wolfpack")),
        ("x-own", Some("kept")),
        ("content-length", Some("4")),
        ("authorization", None),
        ("forwarded", None),
        ("x-hop", None),
        ("upgrade", None),
        ("http2-settings", None),
        ("proxy-authorization", None),
        ("keep-alive", None),
        ("connection", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(header(&seen, name), expected, "{name}: {seen}");
    }
    assert!(!seen.contains("wp_") && !seen.contains("wpl_"), "{seen}");
    assert!(!seen.contains(KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_ranges_and_empty_answers_keep_what_they_say() {
    let rig = rig(|mut wire| async move {
        for _ in 0..4 {
            let head = wire.head().await;
            let answer = match head.split(' ').nth(1).unwrap() {
                "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\netag: \"x\"\r\n\r\n",
                "/same" => "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n",
                "/part" => {
                    assert!(head.contains("range: bytes=2-4\r\n"), "{head}");
                    "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-4/9\r\ncontent-length: 3\r\n\r\ncde"
                }
                _ => "HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            };
            wire.send(answer).await;
        }
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(head("HEAD /head") + "\r\n").await;
    let answer = wire.head().await.to_ascii_lowercase();
    assert_eq!(header(&answer, "content-length"), Some("12345"), "{answer}");
    wire.send(get("/same")).await;
    let answer = wire.head().await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 304 "), "{answer}");
    wire.send(head("GET /part") + "range: bytes=2-4\r\n\r\n").await;
    let (status, answer, body) = wire.answer().await;
    assert_eq!((status, body.as_str()), (206, "cde"));
    assert_eq!(header(&answer, "content-range"), Some("bytes 2-4/9"));
    wire.send(get("/empty")).await;
    let (status, _, body) = wire.answer().await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert_eq!(rig.sandboxes().dialed().len(), 1, "one connection served all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_says_of_lengths_is_made_plain_too() {
    let rig = rig(|mut wire| async move {
        loop {
            let head = wire.head().await.to_ascii_lowercase();
            let length = header(&head, "content-length").unwrap_or("0").parse().unwrap();
            wire.exactly(length).await;
            let lengths = "content-length: 2\r\ntransfer-encoding: chunked";
            wire.send(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
        }
    })
    .await;
    let mut wire = client(&rig).await;
    // A request with a body does not go on as anything else, and its body is its own.
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 4\r\n\r\nbody";
    for request in [get("/"), head("POST /") + upgrade, get("/")] {
        wire.send(request).await;
        let answer = wire.head().await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        assert_eq!(header(&answer, "content-length"), None, "{answer}");
        assert_eq!(wire.chunked().await, b"hello");
    }
}

//! Bodies flow: nothing is held back, nothing is collected, no end is made up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::raw::{SOON, client, get, head, header, rig};

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_they_are_sent() {
    let go_on = Arc::new(Notify::new());
    let next = Arc::clone(&go_on);
    let rig = rig(move |mut wire| {
        let next = Arc::clone(&next);
        async move {
            wire.head().await;
            wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n").await;
            wire.send("transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n").await;
            next.notified().await;
            wire.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(get("/events")).await;
    let answer = wire.head().await.to_ascii_lowercase();
    assert_eq!(header(&answer, "content-type"), Some("text/event-stream"));
    // The second is not sent before the first was here.
    assert!(wire.until("data: 1\n\n\r\n").await.starts_with("9\r\n"));
    go_on.notify_one();
    assert!(wire.until("0\r\n\r\n").await.contains("data: 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_streams_both_as_length_and_as_chunks() {
    let (seen, mut got) = mpsc::channel(1);
    let rig = rig(move |mut wire| {
        let seen = seen.clone();
        async move {
            loop {
                let head = wire.head().await;
                let length = if head.contains("chunked") {
                    wire.chunked().await.len()
                } else {
                    wire.exactly(64 * MIB).await.len()
                };
                seen.send(length).await.unwrap();
                wire.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let mut wire = client(&rig).await;
    let block = vec![b'x'; MIB];
    wire.send(head("POST /up") + &format!("content-length: {}\r\n\r\n", 64 * MIB)).await;
    for _ in 0..64 {
        wire.send(&block).await;
    }
    assert_eq!(timeout(SOON * 3, got.recv()).await.unwrap(), Some(64 * MIB));
    assert!(wire.head().await.starts_with("HTTP/1.1 204"));
    wire.send(head("PUT /up") + "transfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..16 {
        wire.send(format!("{MIB:x}\r\n")).await;
        wire.send(&block).await;
        wire.send("\r\n").await;
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(timeout(SOON * 3, got.recv()).await.unwrap(), Some(16 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_target_back_and_gets_everything() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let rig = rig(move |mut wire| {
        let counter = Arc::clone(&counter);
        async move {
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 * MIB)).await;
            let block = vec![b'x'; 64 * 1024];
            for _ in 0..1024 {
                if wire.stream.write_all(&block).await.is_err() {
                    return;
                }
                counter.fetch_add(block.len(), Ordering::Relaxed);
            }
            wire.gone().await;
        }
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(get("/down")).await;
    wire.head().await;
    // Until nothing moves any more: windows and sockets are full.
    let mut before = usize::MAX;
    while sent.load(Ordering::Relaxed) != before {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(before < 32 * MIB, "{before} bytes are held for one who does not read");
    for _ in 0..64 {
        wire.exactly(MIB).await;
    }
    assert_eq!(sent.load(Ordering::Relaxed), 64 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_alone_says_continue() {
    let go_on = Arc::new(Notify::new());
    let next = Arc::clone(&go_on);
    let rig = rig(move |mut wire| {
        let next = Arc::clone(&next);
        async move {
            let head = wire.head().await.to_ascii_lowercase();
            assert_eq!(header(&head, "expect"), Some("100-continue"), "{head}");
            if head.contains("/never") {
                wire.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno").await;
                wire.gone().await;
                return;
            }
            next.notified().await;
            wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(wire.exactly(4).await, b"body");
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
        }
    })
    .await;
    let ask = |path: &str| {
        head(&format!("POST {path}")) + "expect: 100-continue\r\ncontent-length: 4\r\n\r\n"
    };
    let mut wire = client(&rig).await;
    wire.send(ask("/well")).await;
    let early = timeout(Duration::from_millis(500), wire.head()).await;
    assert!(early.is_err(), "the target has said nothing: {early:?}");
    go_on.notify_one();
    assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("body").await;
    let (status, _, body) = wire.answer().await;
    assert_eq!((status, body.as_str()), (200, "done"));

    let mut wire = client(&rig).await;
    wire.send(ask("/never")).await;
    let (status, _, body) = wire.answer().await;
    assert_eq!((status, body.as_str()), (417, "no"), "and no continue before it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_know_the_question_gets_the_body_all_the_same() {
    let rig = rig(|mut wire| async move {
        wire.head().await;
        assert_eq!(wire.exactly(4).await, b"body");
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(head("POST /") + "expect: 100-continue\r\ncontent-length: 4\r\n\r\nbody").await;
    let mut answer = wire.head().await;
    if answer.starts_with("HTTP/1.1 100") {
        answer = wire.head().await;
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_come_through_both_ways() {
    let rig = rig(|mut wire| async move {
        let head = wire.head().await.to_ascii_lowercase();
        assert_eq!(header(&head, "te"), Some("trailers"), "{head}");
        assert_eq!(header(&head, "connection"), Some("te"), "{head}");
        let up = wire.until("0\r\nx-up: 1\r\n\r\n").await;
        assert!(up.contains("hello"), "{up}");
        wire.send("HTTP/1.1 200 OK\r\ntrailer: x-down\r\ntransfer-encoding: chunked\r\n\r\n").await;
        wire.send("2\r\nok\r\n0\r\nx-down: 2\r\n\r\n").await;
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(
        head("POST /")
            + "te: trailers\r\nconnection: te\r\ntrailer: x-up\r\ntransfer-encoding: chunked\r\n\r\n\
               5\r\nhello\r\n0\r\nx-up: 1\r\n\r\n",
    )
    .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(wire.until("0\r\nx-down: 2\r\n\r\n").await, "2\r\nok\r\n0\r\nx-down: 2\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_never_looks_whole() {
    for (answer, half) in [
        ("content-length: 10\r\n\r\nhalf", "half"),
        ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "4\r\nhalf\r\n"),
    ] {
        let rig = rig(move |mut wire| async move {
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 OK\r\n{answer}")).await;
        })
        .await;
        let mut wire = client(&rig).await;
        wire.send(get("/")).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200"));
        let got = wire.rest().await.map(|got| String::from_utf8(got).unwrap());
        if let Ok(got) = got {
            assert!(half.starts_with(&got) && !got.contains("0\r\n\r\n"), "{got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_resets_an_unbounded_answer_breaks_it() {
    let rig = rig(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.0 200 OK\r\n\r\nhalf").await;
        // Unread bytes and no lingering make a reset of the close.
        let socket = socket2::SockRef::from(&wire.stream);
        tokio::time::sleep(Duration::from_millis(300)).await;
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(get("/")).await;
    let answer = wire.head().await.to_ascii_lowercase();
    assert_eq!(header(&answer, "transfer-encoding"), Some("chunked"), "{answer}");
    if let Ok(got) = wire.rest().await {
        let got = String::from_utf8(got).unwrap();
        assert!(!got.ends_with("0\r\n\r\n"), "a reset passed for an end: {got:?}");
    }
}

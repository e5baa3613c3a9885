//! Connections to targets: used again by the same caller, ended with who uses
//! them, bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::raw::{HOST, SOON, client, get, head, mirror, rig, target};
use crate::rig::{KEY, OTHER_KEY, Rig, link};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_its_caller_again_and_nobody_else() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    for _ in 0..5 {
        wire.send(get("/")).await;
        assert_eq!(wire.answer().await.0, 200);
    }
    assert_eq!(rig.sandboxes().dialed(), ["users/ada"]);
    // Another client with the same key is the same caller.
    let mut other = client(&rig).await;
    other.send(get("/")).await;
    assert_eq!(other.answer().await.0, 200);
    assert_eq!(rig.sandboxes().dialed().len(), 1);
    // Another credential is another, though this connection is free.
    let hour = Duration::from_secs(3600);
    for _ in 0..2 {
        let token = link("box", 8080, hour, Duration::ZERO);
        wire.send(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\ncookie: wp_link={token}\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.0, 200);
    }
    wire.send(get("/").replace(KEY, OTHER_KEY)).await;
    assert_eq!(wire.answer().await.0, 404, "whose sandbox it is not gets no connection of it");
    let dialed = rig.sandboxes().dialed();
    let by_link = dialed.iter().filter(|who| *who == "links/box:8080").count();
    assert!((1..=2).contains(&by_link), "{dialed:?}");
    assert_eq!(dialed.len(), 1 + by_link);
}

/// A server with one thread serves nobody else while a connection waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_an_opened_link_left_unused_is_soon_let_go() {
    let hour = Duration::from_secs(3600);
    let rig = Rig::with(|config| config.ingress.idle_timeout = hour).await;
    let (ended, mut ends) = mpsc::channel(4);
    let server = target(move |wire| {
        let ended = ended.clone();
        async move {
            let mut first = [0];
            if wire.stream.peek(&mut first).await.unwrap_or(0) == 0 {
                return ended.send(()).await.unwrap();
            }
            mirror(wire).await;
        }
    })
    .await;
    rig.sandboxes().listen("box", 8080, server);
    let mut wire = client(&rig).await;
    wire.send(get("/")).await;
    assert_eq!(wire.answer().await.0, 200);
    let token = link("box", 8080, hour, Duration::ZERO);
    let open = format!("GET /?wp_link={token} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    wire.send(open).await;
    assert_eq!(wire.answer().await.0, 303);
    assert_eq!(rig.sandboxes().dialed().len(), 2, "the broker was asked");
    timeout(SOON, ends.recv()).await.expect("it is let go").unwrap();
    // One that has served waits for as long as it is told to.
    wire.send(get("/")).await;
    assert_eq!(wire.answer().await.0, 200);
    assert_eq!(rig.sandboxes().dialed().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_met_a_dead_connection_goes_again_if_it_may() {
    let came = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&came);
    // Each connection answers once, and ends as soon as a second request is there.
    let rig = rig(move |mut wire| {
        let counter = Arc::clone(&counter);
        async move {
            wire.head().await;
            counter.fetch_add(1, Ordering::SeqCst);
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            wire.head().await;
            counter.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let mut wire = client(&rig).await;
    wire.send(get("/")).await;
    assert_eq!(wire.answer().await.0, 200);
    wire.send(get("/")).await;
    assert_eq!(wire.answer().await.0, 200, "a GET goes again");
    assert_eq!(came.load(Ordering::SeqCst), 3);
    // Its body is gone; and twice may be once too often.
    for (post, sent) in [("content-length: 1\r\n\r\nx", 4), ("content-length: 0\r\n\r\n", 6)] {
        wire.send(head("POST /") + post).await;
        let (status, _, body) = wire.answer().await;
        assert_eq!(status, 502, "{body}");
        assert_eq!(came.load(Ordering::SeqCst), sent);
        wire.send(get("/")).await;
        assert_eq!(wire.answer().await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_request_before_and_amid_the_answer() {
    let (ended, mut ends) = mpsc::channel(4);
    let (arrived, mut arrives) = mpsc::channel(4);
    let rig = rig(move |mut wire| {
        let (ended, arrived) = (ended.clone(), arrived.clone());
        async move {
            if wire.head().await.contains("/amid") {
                wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
            }
            arrived.send(()).await.unwrap();
            ended.send(wire.gone().await).await.unwrap();
        }
    })
    .await;
    for path in ["/before", "/amid"] {
        let mut wire = client(&rig).await;
        wire.send(get(path)).await;
        timeout(SOON, arrives.recv()).await.unwrap().unwrap();
        if path == "/amid" {
            wire.until("x\r\n").await;
        }
        drop(wire);
        assert!(timeout(SOON * 2, ends.recv()).await.unwrap().unwrap(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_so_many_requests_and_others_have_theirs() {
    let rig = Rig::with(|config| config.ingress.max_requests_per_sandbox = 2).await;
    let open = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&open);
    let slow = target(move |mut wire| {
        let gate = Arc::clone(&gate);
        async move {
            loop {
                wire.head().await;
                gate.acquire().await.unwrap().forget();
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    rig.sandboxes().listen("box", 8080, slow);
    rig.sandboxes().listen("other", 8080, target(mirror).await);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = client(&rig).await;
        wire.send(get("/")).await;
        held.push(wire);
    }
    rig.until("both are there", || rig.sandboxes().dialed().len() == 2).await;
    let mut wire = client(&rig).await;
    wire.send(get("/")).await;
    let (status, answer, body) = wire.answer().await;
    assert_eq!(status, 503, "{body}");
    assert!(answer.contains("\r\nretry-after: 1\r\n") && body.contains("OVERLOADED"), "{answer}");
    wire.send(get("/").replace("--box", "--other")).await;
    assert_eq!(wire.answer().await.0, 200, "another sandbox has its own");
    open.add_permits(3);
    for mut wire in held {
        assert_eq!(wire.answer().await.0, 200);
    }
    wire.send(get("/")).await;
    assert_eq!(wire.answer().await.0, 200, "places come back");
}

/// The bound of calls for one caller is a burst of 2000 and 500 a second.
#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_of_calls_are_not_those_of_requests() {
    let rig = rig(mirror).await;
    let clients = (0..16).map(|_| async {
        let mut wire = client(&rig).await;
        for _ in 0..250 {
            // Nor is it a call, whatever it says of its time.
            wire.send(head("GET /") + "grpc-timeout: 1n\r\ncontent-type: application/grpc\r\n\r\n")
                .await;
            let (status, _, body) = wire.answer().await;
            assert_eq!(status, 200, "{body}");
        }
    });
    join_all(clients).await;
    assert!(rig.sandboxes().dialed().len() <= 64, "{}", rig.sandboxes().dialed().len());
    let (_, _, page) = rig.http(rig.addresses.metrics.unwrap(), "/metrics", &[]).await;
    let page = String::from_utf8(page).unwrap();
    let counted = page.lines().find(|line| line.starts_with("gateway_ingress_requests_total{"));
    assert!(counted.is_some_and(|line| line.contains("form=\"host\"")), "{page}");
}

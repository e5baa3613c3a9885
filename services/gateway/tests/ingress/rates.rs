//! So many requests of one address, whoever it says it is.

use super::raw::{HOST, Wire, client, get, head, header, mirror, target, tls};
use crate::rig::{KEY, Rig};

/// Asks until it is too much; how often it was not, and the answer then.
async fn until_refused(wire: &mut Wire, request: &str) -> (usize, String, String) {
    for count in 0..50 {
        wire.send(request).await;
        let (status, answer, body) = wire.answer().await;
        if status == 429 {
            return (count, answer, body);
        }
        assert_eq!(status, 401, "{body}");
    }
    panic!("it may ask for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_asks_too_fast_is_told_before_its_credential_is_looked_at() {
    let rig = Rig::with(|config| {
        config.listen.set_ip([0, 0, 0, 0].into());
        config.ingress.requests_per_address = 1;
        config.ingress.burst_per_address = 5;
    })
    .await;
    rig.sandboxes().listen("box", 8080, target(mirror).await);
    let mut wire = tls(&rig).await;
    let guess = get("/").replace(KEY, "wp_guess");
    let (count, answer, body) = until_refused(&mut wire, &guess).await;
    assert!((5..15).contains(&count), "{count}");
    assert_eq!(header(&answer, "content-type"), Some("application/json"));
    assert_eq!(header(&answer, "retry-after"), Some("1"));
    assert!(body.contains("RATE_LIMITED"), "{body}");

    // On other connections, and with a link or none, too; people get a page.
    let mut other = tls(&rig).await;
    let page = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\naccept: text/html\r\n\r\n");
    let (count, answer, body) = until_refused(&mut other, &page).await;
    assert!(count < 5, "{count}");
    assert_eq!(header(&answer, "content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(header(&answer, "retry-after"), Some("1"));
    assert!(body.contains("RATE_LIMITED"), "{body}");
    assert!(rig.sandboxes().dialed().is_empty());

    // What is the gateway's own has its own bounds.
    other.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(other.answer().await.0, 200);
    // Who comes by loopback may be many.
    let mut near = client(&rig).await;
    for _ in 0..20 {
        near.send(get("/")).await;
        assert_eq!(near.answer().await.0, 200);
    }
    // And it passes.
    loop {
        wire.send(head("GET /") + "\r\n").await;
        match wire.answer().await.0 {
            200 => break,
            status => assert_eq!(status, 429),
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_balancer_there_is_no_such_bound() {
    let rig = Rig::with(|config| {
        config.listen.set_ip([0, 0, 0, 0].into());
        config.connections_per_address = 0;
        config.ingress.requests_per_address = 1;
        config.ingress.burst_per_address = 1;
    })
    .await;
    rig.sandboxes().listen("box", 8080, target(mirror).await);
    let mut wire = tls(&rig).await;
    for _ in 0..20 {
        wire.send(get("/")).await;
        assert_eq!(wire.answer().await.0, 200);
    }
}

//! What the gateway says when the target does not answer.

use std::time::Duration;

use wolfpack_types::{Fault, Reason};

use super::raw::{client, get, head, header, mirror, rig, target};
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_browsers_and_json_for_programs() {
    let rig = rig(mirror).await;
    let mut wire = client(&rig).await;
    wire.send(
        get("/").replace("8080--", "9999--").replace("\r\n\r\n", "\r\nx-request-id: r-7\r\n\r\n"),
    )
    .await;
    let (status, answer, body) = wire.answer().await;
    assert_eq!(status, 502, "{body}");
    assert_eq!(header(&answer, "content-type"), Some("application/json"));
    assert_eq!(header(&answer, "x-request-id"), Some("r-7"));
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["reason"], "TARGET_UNREACHABLE");
    assert_eq!(said["request_id"], "r-7");
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("nothing listens on port 9999 in the sandbox"), "{message}");

    let browser = "accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n\r\n";
    wire.send(get("/").replace("8080--", "9999--").replace("\r\n\r\n", &format!("\r\n{browser}")))
        .await;
    let (status, answer, body) = wire.answer().await;
    assert_eq!(status, 502);
    assert_eq!(header(&answer, "content-type"), Some("text/html; charset=utf-8"));
    let policy = header(&answer, "content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert!(body.contains("nothing listens on port 9999"), "{body}");
    assert!(body.contains(header(&answer, "x-request-id").unwrap()), "{body}");
    assert!(!body.contains("<script"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_has_its_status() {
    for (fault, status, retry) in [
        (Fault::new(Reason::TunnelLost, "gone"), 503, None),
        (
            Fault::new(Reason::BrokerDraining, "leaving").retry_in(Duration::from_secs(3)),
            503,
            Some("3"),
        ),
        (Fault::new(Reason::DialsLimited, "many").retry_in(Duration::from_secs(1)), 503, Some("1")),
        (Fault::new(Reason::DialTimeout, "late"), 504, None),
        (Fault::new(Reason::TargetForbidden, "no"), 403, None),
    ] {
        let rig = rig(mirror).await;
        rig.sandboxes().refuse(fault.clone());
        let mut wire = client(&rig).await;
        wire.send(get("/")).await;
        let (got, answer, body) = wire.answer().await;
        assert_eq!(got, status, "{body}");
        assert_eq!(header(&answer, "retry-after"), retry, "{answer}");
        assert!(body.contains(fault.reason.as_str()), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_says_nothing_or_nonsense() {
    let rig = Rig::with(|config| config.ingress.answer_timeout = Duration::from_millis(700)).await;
    let odd = target(|mut wire| async move {
        match wire.head().await.split(' ').nth(1).unwrap() {
            "/nonsense" => wire.send("SSH-2.0-OpenSSH_9.2\r\n").await,
            "/closes" => return,
            "/switches" => {
                wire.send("HTTP/1.1 101 Yes\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
            }
            "/uploads" => {
                // Longer than the time, but never still for as long.
                for _ in 0..8 {
                    wire.exactly(1).await;
                }
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
            _ => {}
        }
        wire.gone().await;
    })
    .await;
    rig.sandboxes().listen("box", 8080, odd);
    for (path, status) in
        [("/nonsense", 502), ("/closes", 502), ("/switches", 502), ("/still", 504)]
    {
        let mut wire = client(&rig).await;
        wire.send(get(path)).await;
        let (got, _, body) = wire.answer().await;
        assert_eq!(got, status, "{path}: {body}");
        assert!(!body.contains("INTERNAL"), "{path}: {body}");
    }
    let mut wire = client(&rig).await;
    wire.send(head("POST /uploads") + "content-length: 8\r\n\r\n").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        wire.send("x").await;
    }
    assert_eq!(wire.answer().await.0, 200);
}

//! What the gateway says when nobody answers: to people and to programs.

use std::time::Instant;

use crate::client::BROWSER;
use crate::fleet::{DIAL, DOMAIN, Fleet, SOON};
use crate::sandbox::NOBODY;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_a_page_for_people_and_json_for_programs() {
    let fleet = Fleet::start().await;
    let sandbox = fleet.sandbox().await;
    let key = format!("Bearer {}", fleet.key);
    let ask = async |host: &str, path: &str, accept: &str| {
        let request = fleet.by_host(&sandbox, path).header("authorization", &key);
        let request = request.header("accept", accept);
        let mut request = request.body(axum::body::Body::empty()).unwrap();
        request.headers_mut().insert("host", host.parse().unwrap());
        crate::client::whole(fleet.send(request).await).await
    };
    let nobodys = format!("8080--sb-nobodys.{DOMAIN}");
    let answer = ask(&nobodys, "/", "*/*").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "ENDPOINT_NOT_FOUND"));
    assert_eq!(answer.header("content-type"), "application/json");
    let answer = ask(&nobodys, "/", BROWSER).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(answer.text.contains("There is no such sandbox, or it is not yours"), "{answer:?}");

    // The program's own are its own, whoever asks.
    for accept in ["*/*", BROWSER] {
        let answer = ask(&sandbox.host(), "/nothing-here", accept).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (404, ""), "{answer:?}");
    }

    let nobody = sandbox.host().replace(&sandbox.port.to_string(), &NOBODY.to_string());
    let answer = ask(&nobody, "/", "*/*").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (502, "TARGET_UNREACHABLE"));
    // One that the sandbox's wolf does not let be reached.
    let closed = sandbox.host().replace(&sandbox.port.to_string(), "2");
    let answer = ask(&closed, "/", "*/*").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (403, "TARGET_FORBIDDEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_away_is_waited_for_and_not_for_ever() {
    let fleet = Fleet::start().await;
    let sandbox = fleet.sandbox().await;
    assert_eq!(fleet.ask(fleet.by_path(&sandbox, "/")).await.status, 200);
    sandbox.leave().await;
    let began = Instant::now();
    let answer = fleet.ask(fleet.by_path(&sandbox, "/").header("accept", BROWSER)).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(answer.text.contains("DIAL_TIMEOUT"), "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(began.elapsed() >= DIAL && began.elapsed() < SOON, "{:?}", began.elapsed());
    let answer = fleet.ask(fleet.by_path(&sandbox, "/")).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (504, "DIAL_TIMEOUT"));
}

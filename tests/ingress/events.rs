//! Server-sent events arrive as they are sent.

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::fleet::{Fleet, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_here_before_the_next_is_sent() {
    let fleet = Fleet::start().await;
    for by_link in [false, true] {
        let sandbox = fleet.sandbox().await;
        let request = if by_link {
            let cookie = format!("wp_link={}", fleet.link(&sandbox).await);
            fleet.by_host(&sandbox, "/events").header("cookie", cookie)
        } else {
            fleet.by_path(&sandbox, "/events")
        };
        let response = fleet.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        for at in 0..5 {
            let frame = timeout(SOON, body.frame()).await.expect("an event").unwrap().unwrap();
            let event = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
            assert_eq!(event, format!("event: tick\ndata: {at}\n\n"));
            sandbox.program.next_event();
        }
    }
}

//! Long bodies come whole, both ways and both forms.

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::client::whole;
use crate::fleet::{Fleet, SOON};
use crate::pattern::{self, Hasher, LENGTH};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_and_downloaded_is_the_same_at_both_ends() {
    let fleet = Fleet::start().await;
    let sandbox = fleet.sandbox().await;
    let link = fleet.link(&sandbox).await;
    let by_link =
        |path| fleet.by_host(&sandbox, path).header("authorization", format!("Bearer {link}"));

    let upload = fleet.by_path(&sandbox, "/upload").method(Method::PUT);
    let known = by_link("/upload").method(Method::PUT).header("content-length", LENGTH);
    for (seed, request) in [(2, upload), (3, known)] {
        let request = request.body(pattern::body(seed)).unwrap();
        let answer = whole(fleet.send(request).await).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.text, format!("{LENGTH} {}", pattern::hash(seed)));
    }

    for request in [fleet.by_path(&sandbox, "/download"), by_link("/download")] {
        let mut body = fleet.send(request.body(Body::empty()).unwrap()).await.into_body();
        let mut hasher = Hasher::default();
        while let Some(frame) = timeout(SOON, body.frame()).await.expect("bytes come") {
            if let Some(data) = frame.unwrap().data_ref() {
                hasher.add(data);
            }
        }
        assert_eq!(hasher.finish(), (LENGTH, pattern::hash(1)));
    }
}

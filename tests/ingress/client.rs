//! A client of the gateway: one connection for each request.

use axum::body::Body;
use http::request::Builder;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fleet::{Fleet, SOON};
use crate::sandbox::Sandbox;

/// What a browser says it takes.
pub(crate) const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// An answer that is all here.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// What the answer says of itself when it is JSON of the gateway's.
    pub(crate) fn reason(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.text).unwrap_or_default();
        body["reason"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Fleet {
    /// A request for a path of a sandbox's host, without a credential.
    pub(crate) fn by_host(&self, sandbox: &Sandbox, path: &str) -> Builder {
        Request::builder().uri(path).header("host", sandbox.host())
    }

    /// A request for the same by path, with the first user's key.
    pub(crate) fn by_path(&self, sandbox: &Sandbox, path: &str) -> Builder {
        Request::builder()
            .uri(sandbox.path(path))
            .header("host", "gateway.test")
            .header("authorization", format!("Bearer {}", self.key))
    }

    /// The head of the answer; the body comes as it comes.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let socket = TcpStream::connect(self.http).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        timeout(SOON, sender.send_request(request)).await.expect("an answer").unwrap()
    }

    /// The answer to a request without a body.
    pub(crate) async fn ask(&self, request: Builder) -> Answer {
        whole(self.send(request.body(Body::empty()).unwrap()).await).await
    }
}

/// All of an answer.
pub(crate) async fn whole(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = timeout(SOON, body.collect()).await.expect("it ends").unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8(body.to_vec()).unwrap(),
    }
}

//! An engine that may only make room: what reads or removes passes, what would
//! write is refused with the reason. One request per connection, so that each
//! one is judged by how full it is then.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;

use super::gate::Ready;
use super::refusal::full;

type Body = BoxBody<Bytes, hyper::Error>;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Serves one request of the client.
pub async fn serve(client: UnixStream, ready: Ready) {
    let service = service_fn(|request| async {
        let disk = *ready.restricted.borrow();
        match disk {
            Some(disk) if !makes_room(request.method(), request.uri().path()) => {
                Ok(said(StatusCode::INSUFFICIENT_STORAGE, &full(disk)))
            }
            _ => Ok::<_, std::convert::Infallible>(forward(&ready, request).await.unwrap_or_else(
                |why| {
                    said(StatusCode::BAD_GATEWAY, &format!("the sandbox's engine has gone: {why}"))
                },
            )),
        }
    });
    // A client that goes away in the middle is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(client), service)
        .await;
}

/// Whether a request can only read or remove. `path` may begin with the API's
/// version.
#[must_use]
pub fn makes_room(method: &Method, path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.first().is_some_and(|first| {
        first.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }) {
        parts.remove(0);
    }
    match *method {
        Method::GET | Method::HEAD => !parts.contains(&"attach"),
        Method::DELETE => true,
        Method::POST => match parts.as_slice() {
            [kind, "prune"] => {
                matches!(*kind, "containers" | "images" | "volumes" | "networks" | "build")
            }
            ["containers", _, act] => matches!(*act, "stop" | "kill" | "wait"),
            _ => false,
        },
        _ => false,
    }
}

async fn forward(ready: &Ready, request: Request<Incoming>) -> Result<Response<Body>, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let connecting = UnixStream::connect(&ready.socket);
    let engine = tokio::time::timeout(CONNECT_DEADLINE, connecting)
        .await
        .map_err(|_elapsed| "it takes no connections".to_owned())?
        .map_err(|error| words(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(engine))
        .await
        .map_err(|error| words(&error))?;
    // It ends with the answer's body, which ends with the client's connection.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| words(&error))?;
    Ok(answer.map(http_body_util::BodyExt::boxed))
}

fn said(status: StatusCode, message: &str) -> Response<Body> {
    let text = serde_json::json!({ "message": message }).to_string();
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_or_removes_passes() {
        let pass = [
            (Method::HEAD, "/_ping"),
            (Method::GET, "/v1.41/containers/json"),
            (Method::GET, "/info"),
            (Method::DELETE, "/v1.41/containers/abc"),
            (Method::DELETE, "/v1.41/images/debian:12"),
            (Method::POST, "/v1.41/containers/prune"),
            (Method::POST, "/volumes/prune"),
            (Method::POST, "/v1.41/build/prune"),
            (Method::POST, "/v1.41/containers/abc/stop"),
            (Method::POST, "/v1.41/containers/volumes/kill"),
        ];
        for (method, path) in pass {
            assert!(makes_room(&method, path), "{method} {path}");
        }
        let refuse = [
            (Method::POST, "/v1.41/containers/create"),
            (Method::POST, "/v1.41/containers/abc/start"),
            (Method::POST, "/v1.41/containers/abc/restart"),
            (Method::POST, "/v1.41/containers/abc/exec"),
            (Method::POST, "/v1.41/exec/abc/start"),
            (Method::POST, "/v1.41/containers/abc/attach"),
            (Method::GET, "/v1.41/containers/abc/attach/ws"),
            (Method::PUT, "/v1.41/containers/abc/archive"),
            (Method::POST, "/v1.41/images/create"),
            (Method::POST, "/v1.41/images/load"),
            (Method::POST, "/v1.41/build"),
            (Method::POST, "/build"),
            (Method::POST, "/v1.41/commit"),
            (Method::POST, "/session"),
            (Method::POST, "/v1.41/volumes/create"),
            (Method::POST, "/v1.41/plugins/prune"),
            (Method::POST, "/prune/prune/prune"),
            (Method::PATCH, "/x"),
        ];
        for (method, path) in refuse {
            assert!(!makes_room(&method, path), "{method} {path}");
        }
    }
}

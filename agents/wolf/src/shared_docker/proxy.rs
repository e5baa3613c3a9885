//! HTTP/1.1 from the sandbox's socket to the engine's, upgrades included:
//! attach, exec and build sessions turn into plain bytes.
//!
//! Bodies pass through as they come, but for those of requests that make
//! something, which are bounded, read and written anew. A request has no
//! deadline of ours: waiting for a container may take days; it ends with the
//! sandbox.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wolfpack_runtime::BoxError;

use super::labelled::{self, Labels};

/// Connections of one sandbox at a time.
const CONNECTIONS: usize = 256;
/// The largest body that is read whole.
const BODY: usize = 1 << 20;
/// How long reaching the engine may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(30);
/// After an accept that failed (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, BoxError>;

/// One sandbox's way to the engine.
pub(super) struct Proxy {
    /// The engine's socket.
    pub(super) engine: PathBuf,
    /// What is put on what it makes.
    pub(super) labels: Labels,
}

/// Serves the socket until `stop`, and all its connections with it.
pub(super) async fn serve(
    proxy: Arc<Proxy>,
    listener: UnixListener,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => {
                // One too many is dropped, which tells the client at once.
                let Ok(permit) = connections.clone().try_acquire_owned() else { continue };
                let (proxy, stop, inner) = (proxy.clone(), stop.clone(), tasks.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = proxy.connection(socket, Arc::new(permit), &stop, &inner) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a sandbox's docker socket cannot accept; it tries again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Proxy {
    async fn connection(
        self: Arc<Self>,
        socket: UnixStream,
        permit: Arc<OwnedSemaphorePermit>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let service = service_fn(move |request| {
            let proxy = self.clone();
            let (permit, stop, tasks) = (permit.clone(), stop.clone(), tasks.clone());
            async move {
                let answered = proxy.pass(request, permit, &stop, &tasks).await;
                Ok::<_, Infallible>(answered.unwrap_or_else(|refused| refused))
            }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .half_close(true)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to a sandbox's docker socket broke");
        }
    }

    /// Passes one request on; the error is the answer too.
    async fn pass(
        &self,
        mut request: Request<Incoming>,
        permit: Arc<OwnedSemaphorePermit>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Response<Body>, Response<Body>> {
        let inside = hyper::upgrade::on(&mut request);
        let request = self.labelled(request).await?;
        let away = |error: BoxError| {
            answer(StatusCode::BAD_GATEWAY, &format!("the wolf's engine does not answer: {error}"))
        };
        let connecting = tokio::time::timeout(CONNECT, UnixStream::connect(&self.engine)).await;
        let socket =
            connecting.map_err(|late| away(late.into()))?.map_err(|error| away(error.into()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| away(error.into()))?;
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                ended = connection.with_upgrades() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to the engine broke");
                    }
                }
                () = stopped.cancelled() => {}
            }
        });
        let mut answer = sender.send_request(request).await.map_err(|error| away(error.into()))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let outside = hyper::upgrade::on(&mut answer);
            let stopped = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = splice(inside, outside) => {}
                    () = stopped.cancelled() => {}
                }
                drop(permit);
            });
        }
        Ok(answer.map(|body| body.map_err(BoxError::from).boxed()))
    }

    /// The request as the engine gets it.
    async fn labelled(&self, request: Request<Incoming>) -> Result<Request<Body>, Response<Body>> {
        if request.method() != Method::POST || !labelled::makes(request.uri().path()) {
            return Ok(request.map(|body| body.map_err(BoxError::from).boxed()));
        }
        let (mut head, body) = request.into_parts();
        let read = Limited::new(body, BODY).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                answer(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB")
            } else {
                answer(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}"))
            }
        })?;
        let written = self
            .labels
            .add(&read.to_bytes())
            .map_err(|words| answer(StatusCode::BAD_REQUEST, &words))?;
        head.headers.remove(TRANSFER_ENCODING);
        head.headers.insert(CONTENT_LENGTH, written.len().into());
        head.headers
            .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
        Ok(Request::from_parts(head, whole(written)))
    }
}

/// Bytes both ways until both sides have ended.
async fn splice(inside: hyper::upgrade::OnUpgrade, outside: hyper::upgrade::OnUpgrade) {
    let spliced = async {
        let (inside, outside) = tokio::try_join!(inside, outside)?;
        let (mut inside, mut outside) = (TokioIo::new(inside), TokioIo::new(outside));
        tokio::io::copy_bidirectional(&mut inside, &mut outside).await?;
        Ok::<_, BoxError>(())
    };
    if let Err(error) = spliced.await {
        tracing::debug!(%error, "an upgraded connection to the engine broke");
    }
}

fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {}).boxed()
}

/// An answer in the engine's own form.
fn answer(status: StatusCode, words: &str) -> Response<Body> {
    let body = json!({"message": format!("wolfpack: {words}")}).to_string();
    let mut answer = Response::new(whole(body.into_bytes()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    answer
}

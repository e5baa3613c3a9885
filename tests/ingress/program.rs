//! The program in a sandbox: an HTTP server as people write them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::routing::{get, put};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::pattern::{self, Hasher};
use crate::sockets;

#[derive(Clone, Default)]
struct Here {
    /// Lets one more event go.
    next: Arc<Notify>,
    heads: Arc<Mutex<Vec<HeaderMap>>>,
}

pub(crate) struct Program {
    pub(crate) address: SocketAddr,
    here: Here,
    serving: tokio::task::AbortHandle,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Program {
    pub(crate) async fn start() -> Self {
        let here = Here::default();
        let router = Router::new()
            .route("/", get(hello))
            .route("/upload", put(upload))
            .route("/download", get(async || pattern::body(1)))
            .route("/events", get(events))
            .route("/socket", get(sockets::serve))
            .with_state(here.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, here, serving: serving.abort_handle() }
    }

    /// The headers of the requests for `/` that it saw.
    pub(crate) fn heads(&self) -> Vec<HeaderMap> {
        self.here.heads.lock().clone()
    }

    /// Lets it send its next event.
    pub(crate) fn next_event(&self) {
        self.here.next.notify_one();
    }
}

async fn hello(State(here): State<Here>, headers: HeaderMap) -> &'static str {
    here.heads.lock().push(headers);
    "hello from the sandbox"
}

async fn upload(request: Request) -> Result<String, StatusCode> {
    let mut hasher = Hasher::default();
    let mut body = request.into_body().into_data_stream();
    while let Some(data) = body.next().await {
        hasher.add(&data.map_err(|_| StatusCode::BAD_REQUEST)?);
    }
    let (length, hash) = hasher.finish();
    Ok(format!("{length} {hash}"))
}

/// One event at once, and one more each time it is told to.
async fn events(State(here): State<Here>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for at in 0.. {
            let event = Event::default().event("tick").data(at.to_string());
            if sender.send(Ok(event)).await.is_err() {
                return;
            }
            here.next.notified().await;
        }
    });
    Sse::new(ReceiverStream::new(receiver))
}

/// An answer of this status and no more.
pub(crate) fn bare(status: StatusCode) -> axum::response::Response {
    let mut response = axum::response::Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

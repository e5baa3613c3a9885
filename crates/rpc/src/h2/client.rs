//! A connection that we open streams on, and open again when it is lost.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{AbortHandle, Abortable, BoxFuture, Shared};
use h2::client::{Builder, SendRequest};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::Body as _;
use parking_lot::Mutex;
use tonic::body::Body;
use wolfpack_runtime::BoxError;
use wolfpack_runtime::telemetry::spawn_as;

use super::alive::listening;
use super::chores::{Chores, Deaf};
use super::receive::Receive;
use super::send::Sending;
use super::{ByteBudget, REMEMBERED_RESETS, SEND_BUFFER, Settings};
use crate::client::RequestCut;
use crate::server::BoxIo;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("wolfpack/", env!("CARGO_PKG_VERSION")));

/// Opens a byte stream to the peer, in bounded time.
pub(crate) type Connect =
    Box<dyn Fn() -> BoxFuture<'static, Result<BoxIo, BoxError>> + Send + Sync>;

/// Connects at the first call and after each loss; calls that come meanwhile
/// wait for the same attempt and share its failure. Clones share the connection,
/// which ends when the last clone and the last stream are gone.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    scheme: Scheme,
    authority: Authority,
    connect: Connect,
    settings: Settings,
    budget: ByteBudget,
    dispatch: tracing::Dispatch,
    current: Mutex<Option<Attempt>>,
}

type Attempt = Shared<BoxFuture<'static, Result<Live, Failure>>>;

/// A connection that was made.
#[derive(Clone)]
struct Live {
    requests: SendRequest<Bytes>,
    ended: Arc<AtomicBool>,
}

/// Why there is no connection; the same for all who waited.
#[derive(Debug, Clone)]
struct Failure(Arc<dyn Error + Send + Sync>);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Failure {
    /// The failure itself, so that whoever looks for its kind finds it.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

impl Client {
    /// A client of the peer that `connect` reaches, whose requests say that they
    /// are for `origin`. To be made and used inside a runtime.
    pub(crate) fn new(
        scheme: Scheme,
        authority: Authority,
        connect: Connect,
        settings: Settings,
        budget: ByteBudget,
    ) -> Self {
        Self(Arc::new(Inner {
            scheme,
            authority,
            connect,
            settings,
            budget,
            dispatch: tracing::dispatcher::get_default(Clone::clone),
            current: Mutex::new(None),
        }))
    }

    /// What bounds how far the peer may send ahead.
    pub(crate) fn budget(&self) -> &ByteBudget {
        &self.0.budget
    }

    /// Sends a request; its body goes on being sent after the answer began, until
    /// it ends, the peer resets the stream, or both body and answer are dropped.
    ///
    /// # Errors
    /// When there is no connection, or it or the stream broke before an answer.
    pub(crate) async fn call(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let mut requests = self.ready().await?;
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().cloned();
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.0.scheme.clone());
        uri.authority = Some(self.0.authority.clone());
        uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(uri)?;
        head.headers.insert(header::USER_AGENT, USER_AGENT);
        let cut = head.extensions.remove::<RequestCut>();
        let ended = body.is_end_stream();
        let (answer, stream) = requests.send_request(Request::from_parts(head, ()), ended)?;
        drop(requests);
        match cut {
            _ if ended => {}
            Some(cut) => {
                let (handle, cuttable) = AbortHandle::new_pair();
                cut.sent_by(handle);
                spawn_as(
                    &self.0.dispatch,
                    Abortable::new(Sending::new(body, stream), cuttable).map(drop),
                );
            }
            None => {
                spawn_as(&self.0.dispatch, Sending::new(body, stream));
            }
        }
        Ok(answer.await?.map(|received| Body::new(Receive::new(received))))
    }

    /// A handle of a connection that takes another stream.
    async fn ready(&self) -> Result<SendRequest<Bytes>, BoxError> {
        let (live, fresh) = self.connected().await?;
        match live.requests.clone().ready().await {
            Ok(requests) => Ok(requests),
            Err(error) if fresh => Err(error.into()),
            // It was told to go, and nothing was sent on it.
            Err(_) => {
                live.ended.store(true, Ordering::Relaxed);
                let (live, _) = self.connected().await?;
                Ok(live.requests.ready().await?)
            }
        }
    }

    /// The connection there is, or a new one; and whether it is new.
    async fn connected(&self) -> Result<(Live, bool), BoxError> {
        let (attempt, fresh) = {
            let mut current = self.0.current.lock();
            let usable = current.as_ref().filter(|attempt| match attempt.peek() {
                None => true,
                Some(Ok(live)) => !live.ended.load(Ordering::Relaxed),
                Some(Err(_)) => false,
            });
            match usable {
                Some(attempt) => (attempt.clone(), false),
                None => {
                    let connecting = (self.0.connect)();
                    let (settings, budget) = (self.0.settings.clone(), self.0.budget.clone());
                    let dispatch = self.0.dispatch.clone();
                    let attempt = async move {
                        let io = connecting.await.map_err(|error| Failure(error.into()))?;
                        let begun = begin(io, &settings, &budget, &dispatch).await;
                        begun.map_err(|error| Failure(Arc::new(error)))
                    };
                    // In a task, or one that nobody waits for any more would stop half way.
                    let attempt = spawn_as(&self.0.dispatch, attempt)
                        .map(|ended| ended.unwrap_or_else(|error| Err(Failure(Arc::new(error)))));
                    (current.insert(attempt.boxed().shared()).clone(), true)
                }
            }
        };
        Ok((attempt.await?, fresh))
    }
}

/// Begins HTTP/2 and runs the connection in a task, which ends with it.
async fn begin(
    io: BoxIo,
    settings: &Settings,
    budget: &ByteBudget,
    dispatch: &tracing::Dispatch,
) -> Result<Live, h2::Error> {
    let window = budget.window();
    let (io, heard) = listening(io);
    let (requests, mut connection) = Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.max_frame)
        .max_header_list_size(settings.header_list_size)
        .max_concurrent_streams(settings.max_streams)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_local_error_reset_streams(Some(settings.local_resets))
        .max_pending_accept_reset_streams(settings.pending_resets)
        .enable_push(false)
        .handshake::<_, Bytes>(io)
        .await?;
    let ended = Arc::new(AtomicBool::new(false));
    let mark = Ended(ended.clone());
    let mut chores = Chores::new(heard, connection.ping_pong(), settings, budget, window);
    spawn_as(dispatch, async move {
        let _mark = mark;
        let end = std::future::poll_fn(|cx| {
            // It is told nothing but that the peer is dead.
            if chores.poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            loop {
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(Some(ended));
                }
                match chores.tell(|window| connection.set_initial_window_size(window)) {
                    Ok(true) => {}
                    Ok(false) => return Poll::Pending,
                    Err(Deaf) => return Poll::Ready(None),
                }
            }
        });
        match end.await {
            None => {
                tracing::debug!("a peer did not answer for too long; its connection is given up");
            }
            Some(Err(error)) => tracing::debug!(%error, "connection ended"),
            Some(Ok(())) => {}
        }
    });
    Ok(Live { requests, ended })
}

/// Says that a connection is over, however its task ends.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

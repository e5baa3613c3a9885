//! Callers that show nothing of who they are have places of their own, few,
//! and a share of them for each address: however many come, none takes the
//! place of a caller who shows a credential, which may still be a wrong one. Who takes one for a unary call must
//! send the message soon, for nothing else is known of it yet.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::Status;
use tonic::body::Body;
use wolfpack_types::{Fault, Reason};

use crate::auth::{PeerIdentity, shows_nothing};
use crate::policy::RpcKind;
use crate::server::body::refuse;
use crate::server::profile::Profile;
use crate::server::shared::{Peer, Route};
use crate::server::shares::{Share, Shares};
use crate::server::stack::{Answer, Next};

/// The places of strangers on one listener.
pub(super) struct Strangers {
    calls: Pool,
    streams: Pool,
    message: Duration,
}

struct Pool {
    places: Arc<Semaphore>,
    shares: Option<Arc<Shares>>,
}

/// A place among the strangers, until it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// Whether nothing says who calls.
pub(super) fn is_stranger(request: &Request<Body>) -> bool {
    let nobody = PeerIdentity::Unknown;
    let peer = request.extensions().get::<Arc<Peer>>();
    let identity = peer.map_or(&nobody, |peer| &peer.identity);
    shows_nothing(identity, request.headers())
}

impl Strangers {
    pub(super) fn new(profile: &Profile) -> Self {
        let pool = |places| Pool {
            places: Arc::new(Semaphore::new(places)),
            shares: profile.strangers_per_address.map(Shares::new),
        };
        Self {
            calls: pool(profile.max_stranger_calls),
            streams: pool(profile.max_stranger_streams),
            message: profile.stranger_message,
        }
    }

    /// Takes a place, when one is free.
    pub(super) fn place(&self, kind: RpcKind, request: &Request<Body>) -> Option<Place> {
        let pool = if kind == RpcKind::Unary { &self.calls } else { &self.streams };
        let share = match (&pool.shares, own_address(request)) {
            (Some(shares), Some(address)) => Some(shares.take(address)?),
            _ => None,
        };
        let permit = Arc::clone(&pool.places).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, _share: share })
    }

    /// Passes a unary call on, and ends it when its message does not arrive.
    pub(super) fn promptly(&self, route: Route, request: Request<Body>, next: &Next) -> Answer {
        if http_body::Body::is_end_stream(request.body()) {
            return next.handle(request);
        }
        let (arrived, arrives) = oneshot::channel();
        let request = request.map(|inner| Body::new(Arriving { inner, arrived: Some(arrived) }));
        let mut answer = next.handle(request);
        let limit = self.message;
        Box::pin(async move {
            let late = async {
                // Resolves when the message is there, or nobody wants it.
                if tokio::time::timeout(limit, arrives).await.is_ok() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                response = &mut answer => response,
                () = late => refuse(&route, too_late(limit)),
            }
        })
    }
}

/// The caller's own address. A front speaks for many: its says nothing.
fn own_address(request: &Request<Body>) -> Option<IpAddr> {
    let peer = request.extensions().get::<Arc<Peer>>()?;
    match peer.identity {
        PeerIdentity::Known(_) => None,
        PeerIdentity::Unknown | PeerIdentity::Nameless => peer.address.map(|at| at.ip()),
    }
}

fn too_late(limit: Duration) -> Fault {
    Fault::new(
        Reason::DeadlineExceeded,
        format!(
            "the message of the call did not arrive within {limit:?}; send it with the call, \
             or bring a credential"
        ),
    )
}

/// A request body that says when all of it was read.
struct Arriving {
    inner: Body,
    arrived: Option<oneshot::Sender<()>>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.inner.is_end_stream() {
            self.arrived = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

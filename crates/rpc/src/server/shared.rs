//! What the layers of one listener share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use http::Request;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wolfpack_types::Principal;

use super::layers::rate_limit::Limiter;
use super::metrics::Metrics;
use super::profile::Profile;
use crate::auth::{Authority, PeerIdentity};
use crate::policy::{PolicyRow, RpcKind, Table, is_open};

/// State of the layers of one listener.
pub(crate) struct Shared {
    pub(crate) profile: Profile,
    pub(crate) metrics: Metrics,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) limiter: Option<Limiter>,
    /// What works for calls beside their handlers.
    pub(crate) tasks: TaskTracker,
    /// Ends streams while the server drains.
    pub(crate) stop_streams: CancellationToken,
}

/// Who is at the other end of a connection, in the extensions of each of its
/// requests as `Arc<Peer>`.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Its address; `None` where it came through a tunnel or a local socket.
    pub address: Option<SocketAddr>,
    /// Whether TLS protects the connection.
    pub encrypted: bool,
    pub(crate) identity: PeerIdentity,
    /// Whether somebody known has called by the connection.
    pub(crate) called: Arc<AtomicBool>,
}

impl Peer {
    /// A peer that something else has authenticated, such as a tunnel.
    #[must_use]
    pub fn authenticated(principal: Principal) -> Self {
        Self { identity: PeerIdentity::Known(principal), ..Self::default() }
    }

    /// A peer that nothing is known of.
    #[must_use]
    pub fn unknown(address: Option<SocketAddr>) -> Self {
        Self { address, ..Self::default() }
    }

    /// Whom the connection itself proves, certificate or tunnel.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        match &self.identity {
            PeerIdentity::Known(principal) => Some(principal),
            PeerIdentity::Unknown | PeerIdentity::Nameless => None,
        }
    }
}

/// What the path says, found once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// The policy's row; none means denied, or the fallback.
    pub(crate) row: Option<&'static PolicyRow>,
    /// The path is not an rpc; the fallback looks after itself.
    pub(crate) fallback: bool,
    /// Bounded name for metrics and spans.
    pub(crate) label: &'static str,
    /// Whether answers are gRPC answers.
    pub(crate) grpc: bool,
}

impl Route {
    pub(crate) fn find<B>(
        request: &Request<B>,
        table: &Table,
        has_fallback: bool,
        served: impl FnOnce(&str) -> bool,
    ) -> Self {
        let row = table.get(request.uri().path());
        let fallback = row.is_none() && has_fallback && !served(request.uri().path());
        let label = match (row, fallback) {
            (Some(row), _) => row.method,
            (None, true) => "_FALLBACK",
            (None, false) => "_OTHER",
        };
        let grpc = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        Self { row, fallback, label, grpc: grpc || !fallback }
    }

    pub(crate) fn kind(&self) -> RpcKind {
        self.row.map_or(RpcKind::Stream, |row| row.kind)
    }

    /// Whether nobody is asked who calls.
    pub(crate) fn open(&self) -> bool {
        self.fallback || self.row.is_some_and(is_open)
    }
}

/// The id of a request, in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// When a call ends, in its extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallDeadline(pub(crate) Instant);

/// Reads what an outer layer has put there; each is put before it is read.
pub(crate) fn route<B>(request: &Request<B>) -> Route {
    request.extensions().get::<Route>().copied().unwrap_or(Route {
        row: None,
        fallback: false,
        label: "_OTHER",
        grpc: true,
    })
}

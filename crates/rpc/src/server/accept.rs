//! The accept path: every limit that comes before the first request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::Supervisor;
use wolfpack_runtime::rarely::unless;
use wolfpack_types::Principal;

use super::connection::{Connection, Limits};
use super::drain::Drain;
use super::io::BoxIo;
use super::listen::BoundListener;
use super::metrics::{Metrics, Refusal};
use super::shared::Peer;
use super::shares::{Share, Shares};
use super::socket;
use crate::auth::PeerIdentity;
use crate::tls::{ServerTls, identity};

/// How long to wait after an accept that failed: the usual cause, no free file
/// descriptor, does not pass at once.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Byte streams that something else accepts, each with its peer.
pub(crate) type Incoming = Pin<Box<dyn Stream<Item = io::Result<(BoxIo, Peer)>> + Send>>;

/// Where connections come from.
pub(crate) enum Source {
    Tcp(BoundListener),
    Incoming(Incoming),
}

/// What all connections of a listener have in common.
pub(crate) struct Acceptor {
    pub(crate) connection: Arc<Connection>,
    pub(crate) metrics: Metrics,
    pub(crate) supervisor: Supervisor,
    pub(crate) drain: Drain,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) shares: Option<Arc<Shares>>,
    pub(crate) handshakes: Arc<Semaphore>,
}

impl Acceptor {
    /// Accepts until `stop`, or until an incoming stream ends.
    pub(crate) async fn run(
        self: Arc<Self>,
        source: Source,
        stop: CancellationToken,
    ) -> io::Result<()> {
        match source {
            Source::Tcp(listener) => {
                let tcp = TcpListener::from_std(listener.socket)?;
                let mut failed = false;
                loop {
                    let accepted = tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        accepted = tcp.accept() => accepted,
                    };
                    match accepted {
                        Ok((stream, address)) => {
                            failed = false;
                            self.tcp(stream, address, listener.tls.clone());
                        }
                        // The peer left before we came; others wait behind it.
                        Err(error) if is_the_peers(&error) => {}
                        Err(error) => {
                            self.metrics.refused(Refusal::Accept);
                            if !failed {
                                tracing::error!(%error, "cannot accept connections; raise the limit of open files");
                            }
                            failed = true;
                            tokio::time::sleep(ACCEPT_BACK_OFF).await;
                        }
                    }
                }
            }
            Source::Incoming(mut incoming) => loop {
                let next = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    next = incoming.next() => next,
                };
                match next {
                    Some(Ok((io, peer))) => self.stream(io, peer),
                    Some(Err(error)) => {
                        self.metrics.refused(Refusal::Accept);
                        tracing::debug!(%error, "an incoming stream failed");
                    }
                    None => return Ok(()),
                }
            },
        }
    }

    fn place(&self, address: Option<SocketAddr>) -> Option<Place> {
        let share = match (&self.shares, address) {
            (Some(shares), Some(address)) => {
                let share = shares.take(address.ip());
                if share.is_none() {
                    self.metrics.refused(Refusal::AddressLimit);
                    return None;
                }
                share
            }
            _ => None,
        };
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.refused(Refusal::ConnectionLimit);
            return None;
        };
        Some(Place { _permit: permit, _share: share })
    }

    fn tcp(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, tls: Option<ServerTls>) {
        let Some(place) = self.place(Some(address)) else { return };
        let this = Arc::clone(self);
        self.spawn(place, async move {
            if this.connection.profile.http1 {
                socket::tune_raw(&stream);
            } else {
                socket::tune(&stream);
            }
            let begun: Result<(BoxIo, Peer, Limits), Refusal> = match tls {
                None => Ok((Box::new(stream), Peer::unknown(Some(address)), Limits::default())),
                Some(tls) => Box::pin(this.handshake(stream, address, &tls)).await,
            };
            match begun {
                Ok((io, peer, limits)) => this.serve(io, peer, limits).await,
                Err(why) => this.metrics.refused(why),
            }
        });
    }

    fn stream(self: &Arc<Self>, io: BoxIo, peer: Peer) {
        let Some(place) = self.place(peer.address) else { return };
        let this = Arc::clone(self);
        self.spawn(place, async move { this.serve(io, peer, Limits::default()).await });
    }

    fn spawn(&self, place: Place, work: impl Future<Output = ()> + Send + 'static) {
        let cut = self.drain.cut.clone();
        let open = Open::new(self.metrics.clone());
        // Each future around another holds it as it came and as it runs.
        let work = Box::pin(work);
        let work = async move {
            let _held = (place, open);
            unless(cut.cancelled_owned(), work).await;
        };
        self.supervisor.spawn("rpc.connection", self.drain.tasks.track_future(work));
    }

    /// Ends when the connection does; a drain is its own business.
    async fn serve(&self, io: BoxIo, peer: Peer, limits: Limits) {
        if let Err(why) = Arc::clone(&self.connection).serve(io, peer, limits).await {
            self.metrics.refused(why);
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        tls: &ServerTls,
    ) -> Result<(BoxIo, Peer, Limits), Refusal> {
        let deadline = Instant::now() + self.connection.profile.handshake_deadline;
        // The hello is read without a place among the handshakes, so that
        // peers that send half of one take nobody's turn.
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let hello = timeout_at(deadline, hello).await.map_err(|_| Refusal::HandshakeTimeout)?;
        let hello = hello.map_err(|error| failed(address, &error))?;
        let turn = timeout_at(deadline, self.handshakes.acquire()).await;
        let _turn = turn.map_err(|_| Refusal::HandshakeTimeout)?;
        let stream = timeout_at(deadline, hello.into_stream(tls.config()))
            .await
            .map_err(|_| Refusal::HandshakeTimeout)?
            .map_err(|error| failed(address, &error))?;
        let session = stream.get_ref().1;
        let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
        if protocol.as_deref() != Some(b"h2") && !self.connection.profile.http1 {
            return Err(failed(address, &"the peer does not speak h2"));
        }
        let (peer, expires) = match session.peer_certificates().and_then(<[_]>::first) {
            None => (PeerIdentity::Unknown, None),
            Some(leaf) => (
                identity::principal(leaf).map_or(PeerIdentity::Nameless, PeerIdentity::Known),
                Some(crate::tls::not_after(leaf)),
            ),
        };
        if let PeerIdentity::Known(Principal::Anonymous) = peer {
            return Err(failed(address, &"a certificate cannot name nobody"));
        }
        let (address, encrypted) = (Some(address), true);
        let peer = Peer { address, encrypted, identity: peer, called: Arc::default() };
        Ok((Box::new(stream), peer, Limits { certificate_expires: expires.map(until) }))
    }
}

/// When a certificate ends on the clock of the runtime. A far end is cut to a
/// year; connections do not get that old.
fn until(expires: SystemTime) -> Instant {
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now() + left.min(Duration::from_secs(365 * 24 * 3600))
}

fn failed(address: SocketAddr, error: &dyn std::fmt::Display) -> Refusal {
    tracing::debug!(%address, %error, "tls handshake failed");
    Refusal::HandshakeFailed
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// A connection's place, and its address's.
struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// Counts a connection as long as it is there.
struct Open(Metrics);

impl Open {
    fn new(metrics: Metrics) -> Self {
        metrics.connected();
        Self(metrics)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

//! The accept loop of an exposure.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use socket2::{Domain, Protocol, Socket, Type};
use wolfpack_runtime::telemetry::spawn_as;

use super::book::{Exposure, Exposures};
use super::connection::{self, Slot};

/// How long to wait after an accept that failed: the usual cause, no free file
/// descriptor, does not pass at once.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Connections that wait for their accept; the kernel may hold fewer.
const BACKLOG: i32 = 1024;

/// Takes an address. Each connection inherits what the socket is told before it
/// listens.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for the old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    wolfpack_rpc::server::tune_raw(&socket);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the exposure is closed or its time is over.
pub(super) async fn run(book: Arc<Exposures>, exposure: Arc<Exposure>, socket: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, exposure = %exposure.spec.id, "an exposure cannot listen");
            return book.end(&exposure.spec.id);
        }
    };
    let expired = tokio::time::sleep(left_of(&exposure));
    tokio::pin!(expired);
    let mut failed = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = exposure.closed.cancelled() => return,
            () = &mut expired => return book.end(&exposure.spec.id),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failed = false;
                let Some(slot) = admit(&book, &exposure) else {
                    exposure.refused.fetch_add(1, Ordering::Relaxed);
                    connection::reset(&stream);
                    continue;
                };
                exposure.accepted.fetch_add(1, Ordering::Relaxed);
                let carried = connection::run(book.clone(), exposure.clone(), (stream, peer), slot);
                spawn_as(&book.dispatch, carried);
                next_turn().await;
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                if !failed {
                    tracing::error!(%error, exposure = %exposure.spec.id, "cannot accept; raise the limit of open files");
                }
                failed = true;
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

/// Lets those who wait run before the next is accepted: the first of many who come
/// at once is on its way to its agent while the others are let in. It asks the
/// kernel for nothing, as `yield_now` would.
async fn next_turn() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How long it still lives; as good as for ever for one of the configuration.
fn left_of(exposure: &Exposure) -> Duration {
    exposure.spec.origin.as_ref().map_or(Duration::from_secs(10 * 365 * 24 * 3600), |origin| {
        origin.expires.duration_since(SystemTime::now()).unwrap_or_default()
    })
}

/// A place for one more connection, if the bounds and the owner allow it.
fn admit(book: &Exposures, exposure: &Arc<Exposure>) -> Option<Slot> {
    if !book.owner_stays(exposure) {
        return None;
    }
    exposure.rate.check().ok()?;
    Slot::take(&exposure.connections, exposure.spec.limits.max_connections)
}

/// The peer left before we came; others wait behind it.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

//! The accept loop of an exposure.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use wolfpack_runtime::telemetry::spawn_as;

use socket2::{SockRef, TcpKeepalive};

use super::book::{Exposure, Exposures};
use super::connection::{self, Slot};

/// How long to wait after an accept that failed: the usual cause, no free file
/// descriptor, does not pass at once.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// A client that is quiet for this long is asked whether it is there.
const QUIET: Duration = Duration::from_secs(30);

/// Sets on the listener what each connection shall have: they inherit it, which
/// spares them six calls.
fn tune(socket: &TcpListener) {
    wolfpack_rpc::server::tune(socket);
    // A client that lost its power says nothing, and its place would be taken.
    let probes = TcpKeepalive::new().with_time(QUIET).with_interval(QUIET / 3).with_retries(3);
    if let Err(error) = SockRef::from(socket).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "keepalive not set");
    }
}

/// Accepts until the exposure is closed or its time is over.
pub(super) async fn run(book: Arc<Exposures>, exposure: Arc<Exposure>, socket: TcpListener) {
    tune(&socket);
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

/// How long it still lives; as good as for ever for one of the configuration.
fn left_of(exposure: &Exposure) -> Duration {
    exposure.spec.origin.as_ref().map_or(Duration::from_secs(10 * 365 * 24 * 3600), |origin| {
        origin.expires.duration_since(SystemTime::now()).unwrap_or_default()
    })
}

/// A place for one more connection, if the bounds and the owner allow it.
fn admit(book: &Exposures, exposure: &Arc<Exposure>) -> Option<Slot> {
    if let Some(origin) = &exposure.spec.origin {
        // Also when it is gone: nobody knows whose it would be.
        if book.broker.owner(&exposure.spec.endpoint) != origin.owner {
            return None;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_what_its_listener_was_given() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        tune(&socket);
        let listener = tokio::net::TcpListener::from_std(socket).unwrap();
        let _near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let far = SockRef::from(&far);
        assert!(far.tcp_nodelay().unwrap() && far.keepalive().unwrap());
        assert_eq!(far.tcp_keepalive_time().unwrap(), QUIET);
        assert!(far.tcp_user_timeout().unwrap().is_some());
    }
}

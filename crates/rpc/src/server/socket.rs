//! TCP options that every connection of ours has, at both ends.

use std::time::Duration;

use tokio::net::TcpStream;

/// Sent bytes that nobody acknowledges for this long end the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends small frames at once, and finds a dead path while bytes are under way.
/// A connection on which an option fails works without it.
pub fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let tuned =
        socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(USER_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "tcp options not set");
    }
}

//! TCP options that every connection of ours has, at both ends.

use std::os::fd::AsFd;
use std::time::Duration;

/// Sent bytes that nobody acknowledges for this long end the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends small frames at once, and finds a dead path while bytes are under way.
/// A connection on which an option fails works without it. What a listener has,
/// each connection that it accepts has from the start.
pub fn tune(socket: &impl AsFd) {
    let socket = socket2::SockRef::from(socket);
    let tuned =
        socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(USER_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "tcp options not set");
    }
}

//! TCP options of connections, which a listener may have in their stead: what it
//! has, each connection that it accepts has from the start.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Sent bytes that nobody acknowledges for this long end the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that the kernel takes of us and has not sent yet: without a bound it takes
/// some 3 MiB for each reader who stops.
const UNSENT: u32 = 512 * 1024;
/// Who is quiet for this long is asked whether it is there, three times.
const QUIET: Duration = Duration::from_secs(30);
/// How bytes are sent that do not leave the machine. Every kernel has it, and allows
/// it to everybody.
const NEAR: &[u8] = b"reno";

/// For HTTP/2 of our own, at both ends: sends small frames at once, and finds a
/// dead path while bytes are under way. A connection on which an option fails works
/// without it.
pub fn tune(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    told(socket.set_tcp_nodelay(true));
    told(socket.set_tcp_user_timeout(Some(USER_TIMEOUT)));
    if is_near(&socket) {
        told(socket.set_tcp_congestion(NEAR));
    }
}

/// For bytes of people's programs and for HTTP/1.1: sends small pieces at once, and
/// asks who is quiet on another machine, as one that lost its power says nothing and
/// its place would be taken for good. No bound on bytes that are not acknowledged: the kernel counts
/// a peer that reads nothing as one that is gone, and a download may be paused. One
/// that is lost while bytes are under way to it is found as the system finds it,
/// after some 15 minutes.
pub fn tune_raw(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    told(socket.set_tcp_nodelay(true));
    told(socket.set_tcp_notsent_lowat(UNSENT));
    if is_near(&socket) {
        told(socket.set_tcp_congestion(NEAR));
    } else {
        let probes = TcpKeepalive::new().with_time(QUIET).with_interval(QUIET / 3).with_retries(3);
        told(socket.set_tcp_keepalive(&probes));
    }
}

/// Whether its other end is on this machine. There is no path then whose capacity
/// had to be found: where the system has BBR, as many servers do, it would pace
/// each piece with a timer of its own. A listener is near when nobody else can
/// reach it.
fn is_near(socket: &SockRef<'_>) -> bool {
    let other = socket.peer_addr().or_else(|_| socket.local_addr());
    // One that listens on both families sees ::ffff:127.0.0.1.
    other
        .ok()
        .and_then(|address| address.as_socket())
        .is_some_and(|at| at.ip().to_canonical().is_loopback())
}

fn told(set: io::Result<()>) {
    if let Err(error) = set {
        tracing::debug!(%error, "a tcp option is not set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn a_connection_has_what_its_listener_was_given() {
        for raw in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if raw {
                tune_raw(&listener);
            } else {
                tune(&listener);
            }
            let _near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            let far = SockRef::from(&far);
            assert!(far.tcp_nodelay().unwrap());
            assert_eq!(far.tcp_user_timeout().unwrap().is_some(), !raw);
            assert!(!far.keepalive().unwrap(), "its end cannot lose its power alone");
            assert!(!raw || far.tcp_notsent_lowat().unwrap() == UNSENT);
            let congestion = far.tcp_congestion().unwrap();
            assert!(congestion.starts_with(NEAR), "its end is here: {congestion:?}");
        }
    }

    #[test]
    fn who_is_quiet_elsewhere_is_asked() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        tune_raw(&listener);
        let listener = SockRef::from(&listener);
        assert!(listener.keepalive().unwrap());
        assert_eq!(listener.tcp_keepalive_time().unwrap(), QUIET);
    }

    #[test]
    fn who_comes_by_the_other_family_is_near() {
        let Ok(listener) = std::net::TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let _near = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (far, from) = listener.accept().unwrap();
        assert!(from.is_ipv6(), "or this test shows nothing");
        assert!(is_near(&SockRef::from(&far)));
    }

    #[test]
    fn what_others_can_reach_is_not_near() {
        for (address, near) in [("127.0.0.1:0", true), ("[::1]:0", true), ("0.0.0.0:0", false)] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            assert_eq!(is_near(&SockRef::from(&listener)), near, "{address}");
        }
    }
}

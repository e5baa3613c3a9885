//! Whether the peer of a connection is still there: any byte is life; only
//! silence is asked about.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep_until};
use tokio_util::io::InspectReader;

/// When something was last read: milliseconds since the connection began.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    began: Instant,
    at: Arc<AtomicU64>,
}

impl Heard {
    fn now(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.at.load(Ordering::Relaxed))
    }
}

/// A byte stream that notes when it gave something, and what it noted.
pub(super) fn listening<T: AsyncRead>(
    io: T,
) -> (InspectReader<T, impl FnMut(&[u8]) + Send + Unpin>, Heard) {
    let heard = Heard { began: Instant::now(), at: Arc::default() };
    let hears = heard.clone();
    let noting = move |read: &[u8]| {
        if !read.is_empty() {
            hears.now();
        }
    };
    (InspectReader::new(io, noting), heard)
}

/// Ends once the peer is taken for dead: it was silent for the interval, was
/// asked, and was silent for the timeout. Asks nobody who speaks. `looks` is called
/// once an interval or so.
pub(super) async fn dead(
    heard: Heard,
    ping: Option<PingPong>,
    (interval, timeout): (Duration, Duration),
    looks: impl Fn(),
) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        looks();
        let quiet = heard.last() + interval;
        if Instant::now() < quiet {
            sleep_until(quiet).await;
            continue;
        }
        let asked = Instant::now();
        // Where an answer is still out, it is as good as one to a new ping.
        let _ = ping.send_ping(Ping::opaque());
        let answer = std::future::poll_fn(|cx| ping.poll_pong(cx));
        let answered = tokio::time::timeout_at(asked + timeout, answer).await;
        // A connection that broke is told of by itself.
        if answered.is_err() && heard.last() < asked {
            return;
        }
        if matches!(answered, Ok(Err(_))) {
            return std::future::pending().await;
        }
    }
}

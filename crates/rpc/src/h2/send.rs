//! The sending half of a stream, fed by a body.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures::task::{ArcWake, AtomicWaker};
use h2::{Reason, SendStream};
use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;

use super::SEND_BUFFER;

/// Sends a body to its end, and holds one chunk of it at most: it asks for the
/// next when the peer and the connection take more. Ends early when the peer
/// resets the stream. Dropping it resets the stream, as soon as nobody holds the
/// other half.
pub(super) struct Sending {
    body: Body,
    stream: SendStream<Bytes>,
    /// A chunk that waits for room, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    /// Bytes sent since it was seen that there is room.
    unseen: usize,
    news: Arc<News>,
    /// Wakes `news`.
    waker: Waker,
}

impl Sending {
    pub(super) fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        let news = Arc::<News>::default();
        let waker = futures::task::waker(news.clone());
        // The first chunk looks.
        Self { body, stream, waiting: None, unseen: SEND_BUFFER, news, waker }
    }

    /// Sends what waits, once there is room. True when nothing more is to come.
    /// Small pieces need no look each: it costs two locks, and h2 asks the window
    /// of the peer by itself.
    fn poll_waiting(&mut self) -> Poll<Result<bool, h2::Error>> {
        let Some((data, _)) = &self.waiting else { return Poll::Ready(Ok(false)) };
        if self.unseen + data.len() > SEND_BUFFER {
            // One byte: h2 raises it to what is given to it, and a claim ahead of
            // need would bind the window of the connection.
            self.stream.reserve_capacity(1);
            while self.stream.capacity() == 0 {
                self.news.expect();
                let room = ready!(self.stream.poll_capacity(&mut Context::from_waker(&self.waker)));
                self.news.forget();
                match room {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    // The stream is over.
                    None => return Poll::Ready(Ok(true)),
                }
            }
            self.unseen = 0;
        }
        let Some((data, last)) = self.waiting.take() else { return Poll::Ready(Ok(false)) };
        self.unseen += data.len();
        self.stream.send_data(data, last)?;
        Poll::Ready(Ok(last))
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if ready!(self.poll_waiting())? {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return self.poll_left(),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let last = self.body.is_end_stream();
                        if !data.is_empty() {
                            self.waiting = Some((data, last));
                        } else if last {
                            return Poll::Ready(self.stream.send_data(data, true));
                        }
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            return Poll::Ready(self.stream.send_trailers(trailers));
                        }
                    }
                },
                Poll::Ready(Some(Err(status))) => {
                    self.stream.send_reset(reason_of(&status));
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(None) => {
                    return Poll::Ready(self.stream.send_data(Bytes::new(), true));
                }
            }
        }
    }

    /// Whether the peer has left; asks to be told.
    fn poll_left(&mut self) -> Poll<Result<(), h2::Error>> {
        if self.news.is_expected() {
            // It was asked before, and nothing has come since.
            return Poll::Pending;
        }
        self.news.expect();
        self.stream.poll_reset(&mut Context::from_waker(&self.waker)).map_ok(drop)
    }
}

impl Future for Sending {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.news.task.register(cx.waker());
        loop {
            self.news.polling.store(true, Ordering::SeqCst);
            let sent = self.poll_all(cx);
            self.news.polling.store(false, Ordering::SeqCst);
            match sent {
                Poll::Ready(result) => {
                    // Whoever reads the other half of the stream is told, too.
                    if let Err(error) = result {
                        tracing::debug!(%error, "a stream ended while it was sent");
                    }
                    return Poll::Ready(());
                }
                Poll::Pending if self.news.is_expected() => return Poll::Pending,
                // It came after it was asked for, while nobody was woken.
                Poll::Pending => {}
            }
        }
    }
}

/// What h2 has to say of the stream. It has one waker for room and for resets,
/// and calls it in the midst of a poll when room is asked for: the task must not
/// run once more for each of these.
#[derive(Default)]
struct News {
    task: AtomicWaker,
    /// The task is in its poll, and looks by itself.
    polling: AtomicBool,
    /// h2 holds the waker.
    expected: AtomicBool,
}

impl News {
    fn expect(&self) {
        self.expected.store(true, Ordering::SeqCst);
    }

    /// h2 answered at once, and holds no waker.
    fn forget(&self) {
        self.expected.store(false, Ordering::SeqCst);
    }

    fn is_expected(&self) -> bool {
        self.expected.load(Ordering::SeqCst)
    }
}

impl ArcWake for News {
    fn wake_by_ref(news: &Arc<Self>) {
        news.expected.store(false, Ordering::SeqCst);
        // In either order of the two, one side sees the other.
        if !news.polling.load(Ordering::SeqCst) {
            news.task.wake();
        }
    }
}

/// The code that a failed body resets its stream with: its own, where it has one.
fn reason_of(status: &Status) -> Reason {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.reason().unwrap_or(Reason::INTERNAL_ERROR);
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}

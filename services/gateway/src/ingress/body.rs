//! The two bodies of a request: the one on its way to the target, and the
//! answer's. Nothing is collected: a frame is passed on when it is asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use wolfpack_runtime::BoxError;

use super::admission::Place;
use super::pool::Lease;

/// How long a target that was asked may leave us without a word, `100 Continue`
/// or another: then the body goes on, as not every target knows the question.
const UNASKED: Duration = Duration::from_secs(3);

/// A request's body on its way to the target.
pub(super) struct Outgoing {
    inner: Option<Incoming>,
    http2: bool,
    gate: Option<Gate>,
    upload: Option<Arc<Upload>>,
}

/// What is known of a body that is sent.
pub(super) struct Upload {
    frames: AtomicU64,
    /// The request lasts as long as its body is sent, answered or not.
    _place: Arc<Place>,
}

impl Upload {
    /// Grows as long as the client sends and the target takes.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }
}

impl Outgoing {
    /// No body.
    pub(super) fn none() -> Self {
        Self { inner: None, http2: false, gate: None, upload: None }
    }

    /// The client's body, which counts as long as it lives.
    pub(super) fn of(body: Incoming, http2: bool, place: Arc<Place>) -> Self {
        if body.is_end_stream() {
            return Self::none();
        }
        let upload = Upload { frames: AtomicU64::new(0), _place: place };
        Self { inner: Some(body), http2, gate: None, upload: Some(Arc::new(upload)) }
    }

    /// How it gets on; `None` for no body.
    pub(super) fn upload(&self) -> Option<Arc<Upload>> {
        self.upload.clone()
    }

    /// Holds it back until the target says that it wants it. Nothing is read
    /// before that, and so nothing tells the client to send.
    pub(super) fn when_wanted(&mut self) -> Arc<Wanted> {
        let (say, wanted) = oneshot::channel();
        self.gate = Some(Gate { wanted, unasked: Box::pin(tokio::time::sleep(UNASKED)) });
        Arc::new(Wanted(Mutex::new(Some(say))))
    }
}

struct Gate {
    wanted: oneshot::Receiver<()>,
    unasked: Pin<Box<Sleep>>,
}

/// Says that the target wants the body. When all of these are gone unsaid, it
/// never will, and its connection ends.
pub(super) struct Wanted(Mutex<Option<oneshot::Sender<()>>>);

impl Wanted {
    pub(super) fn say(&self) {
        if let Some(say) = self.0.lock().take() {
            let _ = say.send(());
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            match Pin::new(&mut gate.wanted).poll(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(Some(Err("the target never wanted the body".into())));
                }
                Poll::Pending => ready!(gate.unasked.as_mut().poll(cx)),
            }
            this.gate = None;
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
        if let (Some(Ok(_)), Some(upload)) = (&frame, &this.upload) {
            upload.frames.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(match frame {
            Some(frame) => Some(frame.map_err(Into::into)),
            // An upload that was given up looks like one that has ended, there.
            None if this.http2 && !inner.is_end_stream() => {
                Some(Err("the client gave its request up".into()))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body. At its end the connection is free for the next request; cut
/// off before, by either side, it is not.
pub(super) struct Answered {
    inner: Incoming,
    lease: Option<Lease>,
    _place: Arc<Place>,
    /// As long as the answer lasts nobody has decided on the body.
    _wanted: Option<Arc<Wanted>>,
}

impl Answered {
    pub(super) fn new(
        inner: Incoming,
        lease: Option<Lease>,
        place: Arc<Place>,
        wanted: Option<Arc<Wanted>>,
    ) -> Self {
        Self { inner, lease, _place: place, _wanted: wanted }
    }

    fn over(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Err(_)) => self.lease = None,
            None => self.over(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        // One whose length is known is not polled to its end.
        if self.inner.is_end_stream() {
            self.over();
        }
    }
}

//! Refuses at once what would have to wait: a bounded number of calls runs,
//! of streams apart from them, and of strangers' apart from both.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use wolfpack_types::Reason;

use super::strangers::{self, Strangers};
use crate::error::busy;
use crate::policy::RpcKind;
use crate::server::body::{Held, refuse};
use crate::server::profile::Profile;
use crate::server::shared::route;
use crate::server::stack::{Answer, Handle, Next};

pub(crate) struct LoadShed {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// What no rpc is, pages and pictures: whoever asks, it takes no place of
    /// an rpc.
    fallback: Arc<Semaphore>,
    strangers: Strangers,
    next: Next,
}

impl LoadShed {
    pub(crate) fn new(profile: &Profile, next: Next) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(profile.max_calls)),
            streams: Arc::new(Semaphore::new(profile.max_streams)),
            fallback: Arc::new(Semaphore::new(profile.max_streams)),
            strangers: Strangers::new(profile),
            next,
        }
    }
}

impl Handle for LoadShed {
    fn handle(&self, request: Request<Body>) -> Answer {
        let route = route(&request);
        if route.open() && !route.fallback {
            // Probes must learn that a busy server lives.
            return self.next.handle(request);
        }
        let kind = route.kind();
        let stranger = strangers::is_stranger(&request);
        let place = if route.fallback {
            Arc::clone(&self.fallback).try_acquire_owned().ok().map(Place::Known)
        } else if stranger {
            self.strangers.place(kind, &request).map(Place::Strangers)
        } else {
            let slots = if kind == RpcKind::Unary { &self.calls } else { &self.streams };
            Arc::clone(slots).try_acquire_owned().ok().map(Place::Known)
        };
        let Some(place) = place else {
            let fault = busy(
                Reason::Overloaded,
                "the server has too much to do at once; try again in a moment",
                Duration::from_millis(200),
            );
            return Box::pin(async move { refuse(&route, fault) });
        };
        let answer = if stranger && kind == RpcKind::Unary && !route.fallback {
            self.strangers.promptly(route, request, &self.next)
        } else {
            self.next.handle(request)
        };
        Box::pin(async move {
            let response = answer.await;
            if kind == RpcKind::Unary || http_body::Body::is_end_stream(response.body()) {
                drop(place);
                return response;
            }
            hold(response, kind, place)
        })
    }
}

/// Keeps the place until the last byte of the response.
fn hold(mut response: Response<Body>, kind: RpcKind, place: Place) -> Response<Body> {
    if kind == RpcKind::Relay {
        response.extensions_mut().insert(Held::new(place));
        return response;
    }
    response.map(|inner| Body::new(Counted { inner, _place: place }))
}

/// What a call holds while it runs.
enum Place {
    Known(#[allow(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
    Strangers(#[allow(dead_code, reason = "held until it is dropped")] strangers::Place),
}

/// A stream holds its place until its last byte.
struct Counted {
    inner: Body,
    _place: Place,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

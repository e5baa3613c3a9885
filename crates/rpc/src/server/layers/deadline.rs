//! When a call ends. The client's `grpc-timeout`, or a default for unary
//! calls; on time the handler is dropped, a running response is cut, and the
//! answer is DEADLINE_EXCEEDED. Streams also end here while the server drains.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Request;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use wolfpack_types::{Fault, Reason};

use super::bounded::Bounded;
use crate::call::{self, Scope};
use crate::policy::RpcKind;
use crate::server::body::refuse;
use crate::server::shared::{CallDeadline, RequestId, Shared, route};
use crate::server::stack::{Answer, Handle, Next};
use crate::timeout;

/// Longer ones are cut to this: nothing of ours lives for ten years.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(crate) struct Deadline {
    pub(crate) shared: Arc<Shared>,
    pub(crate) next: Next,
}

impl Handle for Deadline {
    fn handle(&self, mut request: Request<Body>) -> Answer {
        let route = route(&request);
        let given = match timeout::read(request.headers()) {
            Ok(given) => given,
            Err(timeout::Malformed) => {
                let fault = Fault::new(
                    Reason::RequestInvalid,
                    "the grpc-timeout header is malformed; send up to eight digits and one of H M S m u n",
                )
                .violates("grpc-timeout", "must be up to eight digits and a unit");
                return Box::pin(async move { refuse(&route, fault) });
            }
        };
        let kind = route.kind();
        let time = given
            .or_else(|| (kind == RpcKind::Unary).then_some(self.shared.profile.default_deadline));
        let deadline = time.map(|time| Instant::now() + time.min(LONGEST));
        if time.is_some_and(|time| time.is_zero()) {
            return Box::pin(async move { refuse(&route, exceeded()) });
        }
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(CallDeadline(deadline));
        }
        let request_id = request.extensions().get::<RequestId>().map(|id| Arc::clone(&id.0));
        let scope = Scope { deadline, request_id };
        let stop = (kind == RpcKind::Stream).then(|| self.shared.stop_streams.clone());
        let tasks = self.shared.tasks.clone();
        let next = Arc::clone(&self.next);
        Box::pin(async move {
            let mut cut = Cut {
                timer: deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into()))),
                stop: stop.map(|token| Box::pin(token.cancelled_owned())),
            };
            let answer = call::scope(scope, async move { next.handle(request).await });
            let response = tokio::select! {
                biased;
                fault = &mut cut => return refuse(&route, fault),
                response = answer => response,
            };
            if http_body::Body::is_end_stream(response.body()) || !cut.armed() {
                return response;
            }
            response.map(|inner| {
                // A unary handler is done by now; a stream's works on.
                let at = deadline.filter(|_| kind == RpcKind::Stream);
                Body::new(Bounded::new(inner, cut, at, route.grpc, &tasks))
            })
        })
    }
}

fn exceeded() -> Fault {
    Fault::new(
        Reason::DeadlineExceeded,
        "the deadline passed before the call was done; set a longer one or ask for less",
    )
}

fn stopping() -> Fault {
    Fault::new(Reason::ServerStopping, "the server is stopping; open the stream again")
        .retry_in(Duration::from_millis(500))
}

/// Resolves to the reason why a call must end now.
pub(super) struct Cut {
    timer: Option<Pin<Box<Sleep>>>,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Cut {
    fn armed(&self) -> bool {
        self.timer.is_some() || self.stop.is_some()
    }
}

impl Future for Cut {
    type Output = Fault;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fault> {
        if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(exceeded());
        }
        if self.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(stopping());
        }
        Poll::Pending
    }
}

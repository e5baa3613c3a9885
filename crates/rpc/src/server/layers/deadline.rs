//! When a call ends. The client's `grpc-timeout`, or a default for unary
//! calls, which may not ask for more than the listener's longest; on time the handler is dropped, a running response is cut, and the
//! answer is DEADLINE_EXCEEDED. Streams also end here while the server drains,
//! and when the credential of their caller is revoked.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::Request;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use wolfpack_types::{Fault, Reason};

use super::bounded::Bounded;
use crate::auth::Standing;
use crate::call::{self, Scope};
use crate::policy::RpcKind;
use crate::server::body::refuse;
use crate::server::shared::{CallDeadline, RequestId, Shared, route};
use crate::server::stack::{Answer, Handle, Next};
use crate::timeout;

/// Streams' are cut to this: nothing of ours lives for ten years.
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
        let profile = &self.shared.profile;
        let time = match kind {
            // It holds a place as long as it runs, so how long is for us to say.
            RpcKind::Unary => {
                Some(given.unwrap_or(profile.default_deadline).min(profile.longest_call))
            }
            RpcKind::Stream | RpcKind::Relay => given.map(|given| given.min(LONGEST)),
        };
        let deadline = time.map(|time| Instant::now() + time);
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
                revoked: None,
            };
            let answer = call::scope(scope, async move { next.handle(request).await });
            let mut response = tokio::select! {
                biased;
                fault = &mut cut => return refuse(&route, fault),
                response = answer => response,
            };
            let standing = response.extensions_mut().remove::<Standing>();
            cut.revoked = standing.clone().map(revoked);
            if http_body::Body::is_end_stream(response.body()) || !cut.armed() {
                return response;
            }
            response.map(|inner| {
                // A unary handler is done by now; a stream's works on.
                let at = deadline.filter(|_| kind.streams());
                let release = (at.is_some() || standing.is_some()).then(|| release(at, standing));
                Body::new(Bounded::new(inner, cut, release, route.grpc, &tasks))
            })
        })
    }
}

/// The end of a credential.
fn revoked(standing: Standing) -> BoxFuture<'static, Fault> {
    Box::pin(async move { standing.revoked().await })
}

/// Resolves when a handler's stream must go, whether or not anyone reads it.
async fn release(at: Option<Instant>, standing: Option<Standing>) {
    let over = async {
        match at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    let revoked = async {
        match standing {
            Some(standing) => drop(standing.revoked().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        () = revoked => {}
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
    revoked: Option<BoxFuture<'static, Fault>>,
}

impl Cut {
    fn armed(&self) -> bool {
        self.timer.is_some() || self.stop.is_some() || self.revoked.is_some()
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
        if let Some(revoked) = &mut self.revoked {
            return revoked.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

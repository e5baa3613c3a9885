//! Where each layer really stands: posts between the layers of an assembled
//! stack say how far a request came that one layer alone refuses or marks.

use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use futures::FutureExt as _;
use http::HeaderValue;
use parking_lot::Mutex;
use wolfpack_runtime::Context;
use wolfpack_types::{Fault, Principal, Reason};

use super::*;
use crate::auth::Authority;
use crate::policy::{Allow, PolicyRow, RpcKind};
use crate::server::layers::rate_limit::Limiter;
use crate::server::metrics::Metrics;
use crate::server::profile::{self, Profile};
use crate::server::shared::{RequestId, Route};

const OPEN: PolicyRow =
    PolicyRow { method: "/x.Y/Open", allow: Allow::ANYONE, kind: RpcKind::Unary };
const CLOSED: PolicyRow =
    PolicyRow { method: "/x.Y/Closed", allow: Allow::NOBODY, kind: RpcKind::Unary };

/// What a request had on it at a post.
#[derive(Debug, Clone, Copy)]
struct Seen {
    named: bool,
    counted: bool,
}

struct Post {
    log: Arc<Mutex<Vec<Seen>>>,
    context: Context,
    /// The post, from outside, at which the request panics.
    panics: Option<usize>,
    next: Next,
}

impl Handle for Post {
    fn handle(&self, request: Request<Body>) -> Answer {
        let named = request.extensions().get::<RequestId>().is_some();
        let counted = self.context.telemetry.prometheus().lines().any(|line| {
            line.starts_with("rpc_server_active_calls{") && line.trim_end().ends_with(" 1")
        });
        let mut log = self.log.lock();
        let here = log.len();
        log.push(Seen { named, counted });
        drop(log);
        assert!(self.panics != Some(here), "the test asked for it");
        self.next.handle(request)
    }
}

/// Answers everything well.
struct End;

impl Handle for End {
    fn handle(&self, _: Request<Body>) -> Answer {
        Box::pin(async { Response::new(Body::empty()) })
    }
}

struct NoKeys;

#[async_trait]
impl Authority for NoKeys {
    async fn api_key(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::ApiKeyInvalid, "no keys here"))
    }

    async fn sandbox_token(&self, _: &str) -> Result<Principal, Fault> {
        Err(Fault::new(Reason::SandboxTokenInvalid, "no tokens here"))
    }
}

struct Walk {
    stack: Next,
    log: Arc<Mutex<Vec<Seen>>>,
}

impl Walk {
    fn new(profile: Profile, panics: Option<usize>) -> Self {
        let context = Context::quiet("order");
        let shared = Arc::new(Shared {
            limiter: profile.rate_limit.map(Limiter::new),
            profile,
            metrics: Metrics::new(&context.telemetry.meter()),
            authority: Arc::new(NoKeys),
            tasks: tokio_util::task::TaskTracker::new(),
            stop_streams: tokio_util::sync::CancellationToken::new(),
        });
        let log: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let before = |next| -> Next {
            let (log, context) = (Arc::clone(&log), context.clone());
            Arc::new(Post { log, context, panics, next })
        };
        let stack = assemble_with(&shared, Arc::new(End), &before);
        Self { stack, log }
    }

    /// Sends a request; what each post saw of it, and how it was answered.
    /// Nothing answers where the panic came through.
    async fn send(
        &self,
        row: &'static PolicyRow,
        header: Option<(&'static str, &'static str)>,
    ) -> (Vec<Seen>, Option<Response<Body>>) {
        self.log.lock().clear();
        let mut request = Request::new(Body::empty());
        let route = Route { row: Some(row), fallback: false, label: row.method, grpc: true };
        request.extensions_mut().insert(route);
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let answer = AssertUnwindSafe(async { self.stack.handle(request).await }).catch_unwind();
        let answer = answer.await.ok();
        (self.log.lock().clone(), answer)
    }

    /// The layer, counted from outside, that gave this refusal.
    async fn refuses(
        &self,
        row: &'static PolicyRow,
        header: Option<(&'static str, &'static str)>,
        reason: Reason,
    ) -> usize {
        let (seen, answer) = self.send(row, header).await;
        let headers = answer.expect("no panic").into_parts().0.headers;
        let status = tonic::Status::from_header_map(&headers).expect("a status");
        assert_eq!(crate::error::from_status(&status).reason, reason);
        seen.len() - 1
    }
}

#[tokio::test]
async fn the_order_is_the_designs() {
    let calm = || Profile { rate_limit: None, ..Profile::internal() };
    let whole = Walk::new(calm(), None);
    let (seen, answer) = whole.send(&OPEN, None).await;
    assert!(answer.is_some_and(|answer| answer.status().is_success()));
    assert_eq!(seen.len(), ORDER.len() + 1, "every layer was passed");
    // The post after a layer is the first to see its mark.
    let marked = |mark: fn(&Seen) -> bool| seen.iter().position(mark).expect("marked") - 1;

    let mut caught = Vec::new();
    for post in 0..=ORDER.len() {
        let (_, answer) = Walk::new(calm(), Some(post)).send(&OPEN, None).await;
        caught.push(answer.is_some());
    }
    let panic = caught.iter().position(|caught| *caught).expect("caught") - 1;

    let full = Walk::new(Profile { max_stranger_calls: 0, ..calm() }, None);
    let limit = Some(profile::RateLimit { per_second: 1, burst: 1 });
    let limited = Walk::new(Profile { rate_limit: limit, ..calm() }, None);
    limited.send(&OPEN, None).await;
    let odd = Some(("grpc-timeout", "odd"));
    let wrong = Some(("authorization", "Bearer wp_wrong"));
    let mut found = [
        (marked(|seen| seen.named), Layer::Trace),
        (marked(|seen| seen.counted), Layer::Metrics),
        (panic, Layer::CatchPanic),
        (whole.refuses(&OPEN, odd, Reason::RequestInvalid).await, Layer::Deadline),
        (full.refuses(&OPEN, None, Reason::Overloaded).await, Layer::LoadShed),
        (whole.refuses(&OPEN, wrong, Reason::ApiKeyInvalid).await, Layer::Authenticate),
        (limited.refuses(&OPEN, None, Reason::RateLimited).await, Layer::RateLimit),
        (whole.refuses(&CLOSED, None, Reason::CredentialMissing).await, Layer::Authorise),
    ];
    found.sort_by_key(|(place, _)| *place);
    let order = [
        Layer::Trace,
        Layer::Metrics,
        Layer::CatchPanic,
        Layer::Deadline,
        Layer::LoadShed,
        Layer::Authenticate,
        Layer::RateLimit,
        Layer::Authorise,
    ];
    let expected: Vec<(usize, Layer)> = order.into_iter().enumerate().collect();
    assert_eq!(
        found, *expected,
        "trace and request id, metrics, panic catch, deadline, load shed, authenticate, rate limit, authorise"
    );
}

//! Counts every call, refused ones included.

use std::sync::Arc;
use std::time::Instant;

use http::Request;
use tonic::body::Body;

use crate::policy::RpcKind;
use crate::server::body::{Watch, relayed, watch};
use crate::server::metrics::Metrics;
use crate::server::shared::{Shared, route};
use crate::server::stack::{Answer, Handle, Next};

pub(crate) struct Count {
    pub(crate) shared: Arc<Shared>,
    pub(crate) next: Next,
}

impl Handle for Count {
    fn handle(&self, request: Request<Body>) -> Answer {
        let route = route(&request);
        let call = Call::begin(self.shared.metrics.clone(), route.label);
        let answer = self.next.handle(request);
        Box::pin(async move {
            let response = answer.await;
            if route.kind() == RpcKind::Relay {
                return relayed(response, call);
            }
            watch(response, route.grpc, call)
        })
    }
}

/// A call that runs; dropped before its end it counts as cancelled.
struct Call {
    metrics: Metrics,
    method: &'static str,
    began: Instant,
    over: bool,
}

impl Call {
    fn begin(metrics: Metrics, method: &'static str) -> Self {
        metrics.call_began(method);
        Self { metrics, method, began: Instant::now(), over: false }
    }

    fn over(&mut self, code: &'static str) {
        if !self.over {
            self.over = true;
            self.metrics.call_ended(self.method, code, self.began.elapsed());
        }
    }
}

impl Watch for Call {
    fn end(mut self, code: &'static str) {
        self.over(code);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.over("CANCELLED");
    }
}

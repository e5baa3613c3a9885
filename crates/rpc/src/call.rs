//! What a call passes on to the calls that its handler makes: the time left
//! and the request id.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

tokio::task_local! {
    static SCOPE: Scope;
}

/// The call that a task works for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) deadline: Option<Instant>,
    pub(crate) request_id: Option<Arc<str>>,
}

/// Runs a handler inside its call.
pub(crate) fn scope<F: Future>(scope: Scope, work: F) -> impl Future<Output = F::Output> {
    SCOPE.scope(scope, work)
}

/// The call this task works for; an empty one in a task of its own.
pub(crate) fn current() -> Scope {
    SCOPE.try_with(Clone::clone).unwrap_or_default()
}

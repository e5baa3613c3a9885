//! What answers which path.

use std::collections::HashMap;
use std::sync::Arc;

use http::Request;
use tonic::body::Body;
use wolfpack_types::{Fault, Reason};

use super::body::refuse;
use super::shared::route;
use super::stack::{Answer, Handle, Next};

/// Paths and who answers them; the most exact one wins.
#[derive(Default)]
pub(crate) struct Dispatch {
    /// Whole paths.
    pub(crate) exact: HashMap<&'static str, Next>,
    /// Paths that end with a slash stand for all below them, longest first.
    pub(crate) prefixes: Vec<(&'static str, Next)>,
    /// Services by full name.
    pub(crate) services: HashMap<&'static str, Next>,
    /// Everything that is no rpc of ours.
    pub(crate) fallback: Option<Next>,
}

impl Dispatch {
    pub(crate) fn add_prefix(&mut self, prefix: &'static str, next: Next) {
        self.prefixes.push((prefix, next));
        self.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    /// Whether the path is one of ours, so that the fallback never sees it.
    pub(crate) fn serves(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    fn find(&self, path: &str) -> Option<&Next> {
        self.exact
            .get(path)
            .or_else(|| {
                self.prefixes
                    .iter()
                    .find(|(prefix, _)| path.starts_with(prefix))
                    .map(|(_, next)| next)
            })
            .or_else(|| self.services.get(service_of(path)?))
    }
}

impl Handle for Arc<Dispatch> {
    fn handle(&self, request: Request<Body>) -> Answer {
        match self.find(request.uri().path()).or(self.fallback.as_ref()) {
            Some(next) => next.handle(request),
            None => {
                let route = route(&request);
                let fault = Fault::new(
                    Reason::RouteNotFound,
                    "there is nothing at this path; ask the reflection service what is served here",
                );
                Box::pin(async move { refuse(&route, fault) })
            }
        }
    }
}

/// `/a.B/C` is of the service `a.B`.
fn service_of(path: &str) -> Option<&str> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!method.is_empty() && !method.contains('/')).then_some(service)
}

//! Finds out who calls and puts the [`Caller`] into the request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Request;
use tonic::body::Body;
use tracing::Span;
use wolfpack_types::Principal;

use crate::auth::{ON_BEHALF_OF, identify};
use crate::policy::RpcKind;
use crate::request::Caller;
use crate::server::body::refuse;
use crate::server::shared::{CallDeadline, Peer, RequestId, Shared, route};
use crate::server::stack::{Answer, Handle, Next};

pub(crate) struct Authenticate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) next: Next,
}

impl Handle for Authenticate {
    fn handle(&self, mut request: Request<Body>) -> Answer {
        let route = route(&request);
        let shared = Arc::clone(&self.shared);
        let next = Arc::clone(&self.next);
        Box::pin(async move {
            let principal = if route.open() {
                Principal::Anonymous
            } else {
                let peer = request.extensions().get::<Arc<Peer>>().cloned().unwrap_or_default();
                match identify(&peer.identity, request.headers(), &*shared.authority).await {
                    Ok(principal) => {
                        // Who shows nothing is nobody, and refused by the next layer.
                        if principal != Principal::Anonymous {
                            peer.called.store(true, Ordering::Relaxed);
                        }
                        principal
                    }
                    Err(fault) => return refuse(&route, fault),
                }
            };
            // Read above from whom may send it; nobody reads it later.
            request.headers_mut().remove(ON_BEHALF_OF);
            Span::current().record("principal", tracing::field::display(&principal));
            let extensions = request.extensions();
            let caller = Caller {
                principal,
                request_id: extensions
                    .get::<RequestId>()
                    .map(|id| id.0.to_string())
                    .unwrap_or_default(),
                deadline: extensions.get::<CallDeadline>().map(|deadline| deadline.0),
            };
            let standing = (route.kind() == RpcKind::Stream)
                .then(|| shared.authority.standing(&caller.principal))
                .flatten();
            request.extensions_mut().insert(caller);
            let answer = next.handle(request);
            let Some(standing) = standing else { return answer.await };
            let mut response = tokio::select! {
                biased;
                fault = standing.revoked() => return refuse(&route, fault),
                response = answer => response,
            };
            // The layer that ends streams takes it from here.
            response.extensions_mut().insert(standing);
            response
        })
    }
}

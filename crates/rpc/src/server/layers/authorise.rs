//! The policy table, deny by default: an rpc without a row is for nobody.

use http::Request;
use tonic::body::Body;
use wolfpack_types::Principal;

use crate::policy::Allow;
use crate::request::Caller;
use crate::server::body::refuse;
use crate::server::shared::route;
use crate::server::stack::{Answer, Handle, Next};

pub(crate) struct Authorise {
    pub(crate) next: Next,
}

impl Handle for Authorise {
    fn handle(&self, request: Request<Body>) -> Answer {
        let route = route(&request);
        if route.fallback {
            return self.next.handle(request);
        }
        let allow = route.row.map_or(Allow::NOBODY, |row| row.allow);
        let checked = match request.extensions().get::<Caller>() {
            Some(caller) => allow.check(&caller.principal),
            None => allow.check(&Principal::Anonymous),
        };
        match checked {
            Ok(()) => self.next.handle(request),
            Err(fault) => Box::pin(async move { refuse(&route, fault) }),
        }
    }
}

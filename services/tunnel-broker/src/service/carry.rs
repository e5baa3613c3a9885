//! `AgentTunnelService.Carry`: streams an agent parks or was asked for.

use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;
use wolfpack_rpc::Caller;
use wolfpack_tunnel::grpc;
use wolfpack_tunnel::splice::CarryStream;
use wolfpack_types::{Endpoint, Fault, Principal, Reason};

use super::raw::Method;
use crate::state::Broker;

/// Carry as a method.
pub struct CarryMethod {
    broker: Arc<Broker>,
}

impl CarryMethod {
    /// Carry over this state.
    #[must_use]
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }
}

impl Method for CarryMethod {
    async fn call(
        self: Arc<Self>,
        caller: Caller,
        request: Request<Body>,
    ) -> Result<Response<Body>, Fault> {
        let late = || {
            Fault::new(Reason::FirstMessageMissing, "the first message must be park, within 5 s")
        };
        let accepted = CarryStream::accept(request.into_body());
        let (mut stream, body, park) =
            tokio::time::timeout(self.broker.limits.first_message, accepted)
                .await
                .map_err(|_| late())??;
        // A session is good only for the identity that opened it; to others it
        // does not exist.
        let session = self
            .broker
            .session(&park.session_id)
            .filter(|session| is_of(&caller.principal, session.endpoint()))
            .ok_or_else(|| {
                Fault::new(Reason::SessionUnknown, "there is no such session; attach again")
            })?;
        stream.set_life(session.life.clone());
        session.life.mark();
        if park.dial_id.is_empty() {
            self.broker.not_draining()?;
            session.park(stream)?;
        } else {
            session.answer(&park.dial_id, stream)?;
        }
        Ok(grpc::response(body))
    }
}

fn is_of(caller: &Principal, endpoint: &Endpoint) -> bool {
    match (caller, endpoint) {
        (Principal::Wolf(own), Endpoint::Wolf(wolf)) => own == wolf,
        (Principal::Sandbox { sandbox: own, .. }, Endpoint::Sandbox(sandbox)) => own == sandbox,
        _ => false,
    }
}

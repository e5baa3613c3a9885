//! `TunnelService`: which tunnels there are, and the end of one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};
use wolfpack_proto::tunnel::v1::tunnel_service_server::TunnelService;
use wolfpack_proto::tunnel::v1::watch_tunnels_response::Event;
use wolfpack_proto::tunnel::v1::{
    CloseTunnelRequest, CloseTunnelResponse, GetTunnelRequest, GetTunnelResponse,
    ListTunnelsRequest, ListTunnelsResponse, WatchTunnelsRequest, WatchTunnelsResponse,
};
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::{caller, checked, to_status};
use wolfpack_types::{Endpoint, Fault, Principal, Reason, page};

use crate::audit::{self, Closing};
use crate::domain::access::{may_close, may_see, not_found};
use crate::state::{Broker, Change, Watch};

/// The longest a watch is without a message.
const BOOKMARK: Duration = Duration::from_secs(10);

/// The service over this state.
pub struct Tunnels {
    broker: Arc<Broker>,
}

impl Tunnels {
    /// The service over this state.
    #[must_use]
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// Ends the session of an endpoint, or only the one that is named.
    fn close(&self, endpoint: &Endpoint, named: &str, reason: &str) -> Closing {
        let only = Some(named).filter(|id| !id.is_empty());
        match self.broker.close(endpoint, only, &closed(endpoint, reason)) {
            Some(session) => Closing::Closed(session),
            None => {
                Closing::Missed { named: named.to_owned(), attached: self.other(endpoint, named) }
            }
        }
    }

    /// The session of an endpoint that is not the one that is named. That one may
    /// have attached since it was looked for to be closed, and is no other.
    fn other(&self, endpoint: &Endpoint, named: &str) -> Option<String> {
        let session = self.broker.find(endpoint)?;
        (session.id.as_str() != named).then(|| session.id.to_string())
    }
}

#[tonic::async_trait]
impl TunnelService for Tunnels {
    async fn get_tunnel(
        &self,
        request: Request<GetTunnelRequest>,
    ) -> Result<Response<GetTunnelResponse>, Status> {
        let (caller, request) = checked(request)?;
        let endpoint = Endpoint::parse(&request.endpoint).map_err(invalid)?;
        let owner = self.broker.owner(&endpoint);
        let tunnel = self
            .broker
            .find(&endpoint)
            .filter(|_| may_see(&caller.principal, &owner))
            .map(|session| session.tunnel(owner.name()))
            .ok_or_else(|| to_status(not_found(&endpoint)))?;
        Ok(Response::new(GetTunnelResponse { tunnel: Some(tunnel) }))
    }

    async fn close_tunnel(
        &self,
        request: Request<CloseTunnelRequest>,
    ) -> Result<Response<CloseTunnelResponse>, Status> {
        let (caller, request) = checked(request)?;
        let endpoint = Endpoint::parse(&request.endpoint).map_err(invalid)?;
        let CloseTunnelRequest { session_id, reason, .. } = request;
        let owner = self.broker.owner(&endpoint);
        let allowed = may_close(&caller.principal, &endpoint, &owner);
        let closing = allowed.map(|()| self.close(&endpoint, &session_id, &reason));
        audit::close(&caller.principal, &endpoint, &reason, closing.as_ref());
        let answer = match closing.map_err(to_status)? {
            Closing::Closed(session_id) => {
                CloseTunnelResponse { session_id, ..CloseTunnelResponse::default() }
            }
            Closing::Missed { attached, .. } => CloseTunnelResponse {
                attached_session_id: attached.unwrap_or_default(),
                ..CloseTunnelResponse::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn list_tunnels(
        &self,
        request: Request<ListTunnelsRequest>,
    ) -> Result<Response<ListTunnelsResponse>, Status> {
        let (caller, request) = checked(request)?;
        let scope = format!("ListTunnels {}", caller.principal);
        let after = page::decode(&request.page_token, &scope).map_err(to_status)?;
        let size = page::page_size(request.page_size) as usize;
        let mut tunnels =
            self.broker.list(after.as_deref(), size + 1, |owner| may_see(&caller.principal, owner));
        let more = tunnels.len() > size;
        tunnels.truncate(size);
        let next_page_token = match tunnels.last() {
            Some(last) if more => page::encode(&last.endpoint, &scope),
            _ => String::new(),
        };
        Ok(Response::new(ListTunnelsResponse { tunnels, next_page_token }))
    }

    type WatchTunnelsStream =
        Pin<Box<dyn Stream<Item = Result<WatchTunnelsResponse, Status>> + Send>>;

    async fn watch_tunnels(
        &self,
        request: Request<WatchTunnelsRequest>,
    ) -> Result<Response<Self::WatchTunnelsStream>, Status> {
        let follow = Follow::new(self.broker.watch(), caller(&request).principal);
        Ok(Response::new(Box::pin(futures::stream::try_unfold(follow, Follow::step))))
    }
}

/// What an agent is told whose tunnel was closed. It comes back by its back-off,
/// as after a tunnel that was lost: who must stay away loses its certificate or
/// its token.
fn closed(endpoint: &Endpoint, why: &str) -> Fault {
    let words = match why {
        "" => "an operator closed this tunnel; attach again".to_owned(),
        why => format!("an operator closed this tunnel: {why}; attach again"),
    };
    Fault::new(Reason::TunnelClosed, words).about(endpoint.to_string())
}

fn invalid(error: impl Into<Fault>) -> Status {
    to_status(error.into())
}

/// One watch: the snapshot first, then what follows.
struct Follow {
    ready: VecDeque<WatchTunnelsResponse>,
    watch: Watch,
    caller: Principal,
}

impl Follow {
    fn new(mut watch: Watch, caller: Principal) -> Self {
        let revision = watch.revision;
        let mut ready: VecDeque<WatchTunnelsResponse> = std::mem::take(&mut watch.tunnels)
            .into_iter()
            .filter(|(_, owner)| may_see(&caller, owner))
            .map(|(tunnel, _)| WatchTunnelsResponse {
                revision,
                event: Some(Event::Attached(tunnel)),
            })
            .collect();
        ready.push_back(bookmark(revision, true));
        Self { ready, watch, caller }
    }

    async fn step(mut self) -> Result<Option<(WatchTunnelsResponse, Self)>, Status> {
        if let Some(response) = self.ready.pop_front() {
            return Ok(Some((response, self)));
        }
        loop {
            match tokio::time::timeout(BOOKMARK, self.watch.events.recv()).await {
                Err(_) => {
                    let mark = bookmark(self.watch.revision, false);
                    return Ok(Some((mark, self)));
                }
                Ok(Ok(event)) => {
                    self.watch.revision = event.revision;
                    if event.is_for(&self.caller) {
                        let tunnel = event.tunnel.clone();
                        let event_of = match event.change {
                            Change::Attached => Event::Attached(tunnel),
                            Change::Detached => Event::Detached(tunnel),
                        };
                        let response = WatchTunnelsResponse {
                            revision: event.revision,
                            event: Some(event_of),
                        };
                        return Ok(Some((response, self)));
                    }
                }
                Ok(Err(RecvError::Lagged(_))) => {
                    return Err(to_status(Fault::new(
                        Reason::WatcherTooSlow,
                        "the watcher does not keep up; watch again and read faster",
                    )));
                }
                Ok(Err(RecvError::Closed)) => return Ok(None),
            }
        }
    }
}

fn bookmark(revision: i64, snapshot_complete: bool) -> WatchTunnelsResponse {
    WatchTunnelsResponse {
        revision,
        event: Some(Event::Bookmark(WatchBookmark { snapshot_complete })),
    }
}

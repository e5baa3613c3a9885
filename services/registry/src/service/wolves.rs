//! `WolfService`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::registry::v1::wolf_service_server::WolfService;
use wolfpack_proto::registry::v1::{
    GetWolfRequest, GetWolfResponse, HeartbeatRequest, ListWolvesRequest, ListWolvesResponse,
    RegisterWolfRequest, RegisterWolfResponse, WatchWolvesRequest, WatchWolvesResponse, Wolf,
    watch_wolves_response,
};
use wolfpack_proto::types::v1::WatchBookmark;
use wolfpack_rpc::error::to_status;
use wolfpack_rpc::request::{Caller, caller, checked};
use wolfpack_runtime::clock;
use wolfpack_types::{Fault, InstanceId, Principal, Reason, WolfId};

use super::heartbeat::{Answers, answers, proto_duration};
use super::{Registry, WolfHandler};
use crate::domain::access::{sees_wolf, wolf_not_found};
use crate::domain::time::Micros;
use crate::store::{PageRequest, Registration, WolfRow, WolfScope, invalid_key};
use crate::watch::{Event, WatchStream, WatchedWolf};

#[tonic::async_trait]
impl WolfService for WolfHandler {
    type HeartbeatStream = Answers;
    type WatchWolvesStream = WatchStream<WatchWolvesResponse>;

    async fn register_wolf(
        &self,
        request: Request<RegisterWolfRequest>,
    ) -> Result<Response<RegisterWolfResponse>, Status> {
        let (caller, message) = checked(request)?;
        self.0.register_wolf(&caller, message).await.map(Response::new).map_err(to_status)
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let wolf = wolf_of(&caller(&request)).map_err(to_status)?;
        Ok(Response::new(answers(Arc::clone(&self.0), wolf, request.into_inner())))
    }

    async fn get_wolf(
        &self,
        request: Request<GetWolfRequest>,
    ) -> Result<Response<GetWolfResponse>, Status> {
        let (caller, message) = checked(request)?;
        let wolf = self.0.get_wolf(&caller, &message.name).await.map_err(to_status)?;
        Ok(Response::new(GetWolfResponse { wolf: Some(wolf) }))
    }

    async fn list_wolves(
        &self,
        request: Request<ListWolvesRequest>,
    ) -> Result<Response<ListWolvesResponse>, Status> {
        let (caller, message) = checked(request)?;
        self.0.list_wolves(&caller, &message).await.map(Response::new).map_err(to_status)
    }

    async fn watch_wolves(
        &self,
        request: Request<WatchWolvesRequest>,
    ) -> Result<Response<Self::WatchWolvesStream>, Status> {
        let (caller, message) = checked(request)?;
        let resume = message.resume_revision;
        self.0.watch_wolves(caller, resume).await.map(Response::new).map_err(to_status)
    }
}

impl Registry {
    async fn register_wolf(
        &self,
        caller: &Caller,
        message: RegisterWolfRequest,
    ) -> Result<RegisterWolfResponse, Fault> {
        let wolf = wolf_of(caller)?;
        let registration = Registration {
            instance: InstanceId::parse(&message.instance_id)?,
            display_name: message.display_name,
            labels: message.labels,
            capacity: message.capacity.unwrap_or_default(),
            engine: message.engine,
            agent_version: message.agent_version,
        };
        let row = self.database.register_wolf(&wolf, registration, self.timing).await?;
        // A stream of an older instance has a smaller number.
        self.streams.end_before(&wolf, row.heartbeat_stream);
        self.wolves.wake();
        let wolf = row.with_telemetry(self.database.now().await?, self.timing)?;
        Ok(RegisterWolfResponse {
            wolf: Some(shown(&caller.principal, wolf)),
            heartbeat_interval: Some(proto_duration(self.timing.interval)),
        })
    }

    async fn get_wolf(&self, caller: &Caller, name: &str) -> Result<Wolf, Fault> {
        let id = WolfId::from_name(name)?;
        let row = self.database.wolf(&id).await?;
        if !sees_wolf(&caller.principal, &id, row.tenant()?.as_ref()) {
            return Err(wolf_not_found(&id));
        }
        let now = self.database.now().await?;
        Ok(shown(&caller.principal, row.with_telemetry(now, self.timing)?))
    }

    async fn list_wolves(
        &self,
        caller: &Caller,
        message: &ListWolvesRequest,
    ) -> Result<ListWolvesResponse, Fault> {
        let (scope, who) = match &caller.principal {
            Principal::User { project, .. } => {
                (WolfScope::Project(project.clone()), project.name())
            }
            Principal::Wolf(wolf) => (WolfScope::One(wolf.clone()), wolf.name()),
            Principal::Service(name) => (WolfScope::All, name.clone()),
            Principal::Sandbox { .. } | Principal::Link { .. } | Principal::Anonymous => {
                return Err(forbidden());
            }
        };
        let scope_name = format!("ListWolves {who}");
        let page = PageRequest::new(message.page_size, &message.page_token, scope_name)?;
        let page = self.database.list_wolves(&scope, &page).await?;
        let now = self.database.now().await?;
        let wolf = |row: &WolfRow| {
            Ok::<_, Fault>(shown(&caller.principal, row.with_telemetry(now, self.timing)?))
        };
        let wolves = page.rows.iter().map(wolf).collect::<Result<Vec<_>, _>>()?;
        Ok(ListWolvesResponse { wolves, next_page_token: page.next })
    }

    async fn watch_wolves(
        &self,
        caller: Caller,
        resume: i64,
    ) -> Result<WatchStream<WatchWolvesResponse>, Fault> {
        let revocations = Arc::clone(&self.revocations);
        let message = move |event: Event<WatchedWolf>| {
            // A watch outlives the check at its beginning.
            if let Principal::User { key, expires, .. } = &caller.principal
                && (revocations.get(&key.name()).is_some()
                    || expires.is_some_and(|end| clock::now() >= end))
            {
                return Err(invalid_key());
            }
            Ok(wolf_event(&caller.principal, event))
        };
        WatchStream::begin(Arc::clone(&self.wolves), resume, message).await
    }
}

/// A wolf as a caller may see it: names of images may tell of other tenants, so
/// only services see them.
fn shown(caller: &Principal, wolf: Wolf) -> Wolf {
    match caller {
        Principal::Service(_) => wolf,
        Principal::User { .. }
        | Principal::Wolf(_)
        | Principal::Sandbox { .. }
        | Principal::Link { .. }
        | Principal::Anonymous => Wolf { images: None, ..wolf },
    }
}

/// The message of an event; none when the caller may not see the wolf.
fn wolf_event(caller: &Principal, event: Event<WatchedWolf>) -> Option<WatchWolvesResponse> {
    let (revision, event) = match event {
        Event::Bookmark { revision, snapshot_complete } => {
            let bookmark = WatchBookmark { snapshot_complete };
            (revision, watch_wolves_response::Event::Bookmark(bookmark))
        }
        Event::Change(change) => {
            let watched = &change.row;
            if !sees_wolf(caller, &watched.id, watched.project.as_ref()) {
                return None;
            }
            let event = if change.deleted {
                watch_wolves_response::Event::Deleted(watched.id.name())
            } else {
                watch_wolves_response::Event::Upserted(shown(caller, watched.wolf.clone()))
            };
            (change.revision, event)
        }
    };
    let send_time = Some(Micros::from(clock::now()).to_proto());
    Some(WatchWolvesResponse { revision, event: Some(event), send_time })
}

/// The calling wolf.
pub(super) fn wolf_of(caller: &Caller) -> Result<WolfId, Fault> {
    match &caller.principal {
        Principal::Wolf(wolf) => Ok(wolf.clone()),
        Principal::User { .. }
        | Principal::Service(_)
        | Principal::Sandbox { .. }
        | Principal::Link { .. }
        | Principal::Anonymous => Err(forbidden()),
    }
}

fn forbidden() -> Fault {
    Fault::new(Reason::CallerForbidden, "this kind of caller may not call this rpc")
}

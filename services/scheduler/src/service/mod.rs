//! The rpcs: validate, ask the writer or look at the view, map.

mod map;
mod policy;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wolfpack_proto::scheduler::v1::scheduler_service_server::SchedulerService;
use wolfpack_proto::scheduler::v1::{
    ConfirmReservationRequest, ConfirmReservationResponse, ExplainRequest, ExplainResponse,
    PlaceRequest, PlaceResponse, ReleaseReservationRequest, ReleaseReservationResponse,
};
use wolfpack_rpc::error::to_status;
use wolfpack_rpc::request::{Caller, checked};
use wolfpack_types::{Fault, Principal, ReservationId};

use crate::config::Defaults;
use crate::fleet::FleetHealth;
use crate::placement::{Tenant, rank};
use crate::writer::{View, WriterHandle, not_leader};

pub use policy::POLICY;

/// `SchedulerService`.
pub struct Scheduler {
    writer: WriterHandle,
    fleet: FleetHealth,
    defaults: Defaults,
}

impl Scheduler {
    /// Over a writer.
    #[must_use]
    pub fn new(writer: WriterHandle, fleet: FleetHealth, defaults: Defaults) -> Self {
        Self { writer, fleet, defaults }
    }

    /// What may be read: only a leader knows what is held.
    fn view(&self) -> Result<Arc<View>, Status> {
        let view = self.writer.view();
        if view.epoch.is_none() {
            return Err(to_status(not_leader()));
        }
        self.fleet.usable().map_err(to_status)?;
        Ok(view)
    }
}

/// Whose wolves a caller may hear of.
fn tenant(caller: &Caller) -> Result<Tenant, Status> {
    match &caller.principal {
        Principal::Service(_) => Ok(Tenant::Fleet),
        Principal::User { .. }
        | Principal::Wolf(_)
        | Principal::Sandbox { .. }
        | Principal::Link { .. }
        | Principal::Anonymous => Ok(Tenant::Project(caller.project()?.clone())),
    }
}

fn id(name: &str) -> Result<ReservationId, Status> {
    ReservationId::from_name(name).map_err(|error| to_status(Fault::from(error)))
}

#[tonic::async_trait]
impl SchedulerService for Scheduler {
    async fn place(
        &self,
        request: Request<PlaceRequest>,
    ) -> Result<Response<PlaceResponse>, Status> {
        let (_, message) = checked(request)?;
        let placement = map::placement(&message, &self.defaults).map_err(to_status)?;
        let record = self.writer.place(placement).await.map_err(to_status)?;
        Ok(Response::new(PlaceResponse { reservation: Some(map::reservation(&record)) }))
    }

    async fn confirm_reservation(
        &self,
        request: Request<ConfirmReservationRequest>,
    ) -> Result<Response<ConfirmReservationResponse>, Status> {
        let (_, message) = checked(request)?;
        let record = self.writer.confirm(id(&message.name)?).await.map_err(to_status)?;
        Ok(Response::new(ConfirmReservationResponse {
            reservation: Some(map::reservation(&record)),
        }))
    }

    async fn release_reservation(
        &self,
        request: Request<ReleaseReservationRequest>,
    ) -> Result<Response<ReleaseReservationResponse>, Status> {
        let (_, message) = checked(request)?;
        let outcome = map::outcome(message.outcome());
        let record = self.writer.release(id(&message.name)?, outcome).await.map_err(to_status)?;
        Ok(Response::new(ReleaseReservationResponse {
            reservation: Some(map::reservation(&record)),
        }))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let (caller, message) = checked(request)?;
        let tenant = tenant(&caller)?;
        let shape = message.shape.unwrap_or_default();
        let order = map::order(&shape, tenant, &self.defaults).map_err(to_status)?;
        let view = self.view()?;
        Ok(Response::new(map::explanation(&rank(&view.hosts, &order))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::{ApiKeyId, ProjectId, Role, UserId, WolfId};

    #[test]
    fn a_user_hears_of_its_projects_wolves_only() {
        let project = ProjectId::new();
        let caller = |principal| Caller { principal, request_id: String::new(), deadline: None };
        // A platform admin too: what it explains is what it could place.
        let user = Principal::User {
            user: UserId::new(),
            key: ApiKeyId::new(),
            project: project.clone(),
            role: Role::Admin,
            platform_admin: true,
            expires: None,
        };
        assert_eq!(tenant(&caller(user)).unwrap(), Tenant::Project(project));
        let service = Principal::Service("sandbox-manager".into());
        assert_eq!(tenant(&caller(service)).unwrap(), Tenant::Fleet);
        assert!(tenant(&caller(Principal::Wolf(WolfId::new()))).is_err());
        assert!(tenant(&caller(Principal::Anonymous)).is_err());
    }
}

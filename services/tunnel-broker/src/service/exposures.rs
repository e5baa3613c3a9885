//! `ExposureService`: ports of the broker that lead to targets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};
use wolfpack_proto::tunnel::v1::exposure_service_server::ExposureService;
use wolfpack_proto::tunnel::v1::{
    self as wire, CreateExposureRequest, CreateExposureResponse, DeleteExposureRequest,
    DeleteExposureResponse, GetExposureRequest, GetExposureResponse, ListExposuresRequest,
    ListExposuresResponse,
};
use wolfpack_rpc::{Authority, Caller, checked, to_status};
use wolfpack_runtime::Supervisor;
use wolfpack_types::{Endpoint, ExposureId, Fault, Principal, Reason, page};

use crate::domain::access::{Owner, may_dial, not_found};
use crate::domain::exposure::{ExposureLimits, ExposureRules, ExposureSpec, Origin, may_see};
use crate::domain::target;
use crate::exposure::{Created, Exposure, Exposures, Failure};
use crate::state::Broker;

/// How long one lives that does not say.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The service over this state.
pub struct ExposureRpcs {
    broker: Arc<Broker>,
    exposures: Arc<Exposures>,
    authority: Arc<dyn Authority>,
    supervisor: Supervisor,
}

impl ExposureRpcs {
    /// The service over this state.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        exposures: Arc<Exposures>,
        authority: Arc<dyn Authority>,
        supervisor: Supervisor,
    ) -> Self {
        Self { broker, exposures, authority, supervisor }
    }

    /// Ends the exposure with the credential it was made by.
    fn follow(&self, caller: &Caller, exposure: &Arc<Exposure>) {
        let Some(standing) = self.authority.standing(&caller.principal) else { return };
        let (book, exposure) = (self.exposures.clone(), exposure.clone());
        self.supervisor.spawn("tunnel_exposure", async move {
            tokio::select! {
                _ = standing.revoked() => book.end(&exposure.spec.id),
                () = exposure.closed().cancelled() => {}
            }
        });
    }

    fn create(
        &self,
        caller: &Caller,
        request: CreateExposureRequest,
    ) -> Result<Arc<Exposure>, Fault> {
        let endpoint = Endpoint::parse(&request.endpoint)?;
        let target = target::read(&request.target)?;
        let owner = self.broker.owner(&endpoint);
        may_dial(&caller.principal, &endpoint, &owner, &target)?;
        if owner == Owner::Unknown {
            return Err(not_found(&endpoint));
        }
        let rules = self.exposures.rules.as_ref().ok_or_else(|| {
            Fault::new(
                Reason::ExposuresDisabled,
                "this broker gives out no ports; use wolfpack port-forward, or ask its operator",
            )
        })?;
        let wanted = u16::try_from(request.port).ok().filter(|port| *port > 0);
        let ports = rules.ports(wanted)?;
        let lifetime = request.lifetime.and_then(|lifetime| Duration::try_from(lifetime).ok());
        let ends = SystemTime::now() + lifetime.unwrap_or(LIFETIME).min(rules.max_lifetime);
        // It ends with the key as well.
        let key_ends = match &caller.principal {
            Principal::User { expires, .. } => *expires,
            _ => None,
        };
        let spec = ExposureSpec {
            id: ExposureId::new(),
            listen: SocketAddr::new(rules.address, 0),
            endpoint,
            target,
            limits: limits(rules, request.limits),
            origin: Some(Origin {
                owner,
                creator: caller.principal.to_string(),
                expires: key_ends.map_or(ends, |key| key.min(ends)),
                request_id: request.request_id,
            }),
        };
        let exposure = match self.exposures.create(rules, ports, &spec)? {
            Created::Now(exposure) => exposure,
            // It is followed and written down: it ends with the key that made it.
            Created::Before(exposure) => return Ok(exposure),
        };
        self.follow(caller, &exposure);
        tracing::info!(
            audit = "tunnel.exposed",
            caller = %caller.principal,
            exposure = %exposure.spec.id,
            address = %exposure.address,
            endpoint = %exposure.spec.endpoint,
            dialed = %exposure.spec.target,
            "a target was exposed"
        );
        Ok(exposure)
    }

    fn find(&self, caller: &Caller, name: &str) -> Result<Arc<Exposure>, Fault> {
        let id = ExposureId::from_name(name)?;
        self.exposures
            .get(&id)
            .filter(|exposure| may_see(&caller.principal, exposure.spec.origin.as_ref()))
            .ok_or_else(|| {
                Fault::new(
                    Reason::ExposureNotFound,
                    "there is no such exposure, or it is not yours; list them to see which there are",
                )
                .about(name.to_owned())
            })
    }

    fn delete(&self, caller: &Caller, name: &str) -> Result<(), Fault> {
        let exposure = self.find(caller, name)?;
        let spec = &exposure.spec;
        // Who may open it may end it.
        let may_end = spec.origin.as_ref().is_some_and(|origin| {
            may_dial(&caller.principal, &spec.endpoint, &origin.owner, &spec.target).is_ok()
        });
        if !may_end {
            return Err(Fault::new(
                Reason::CallerForbidden,
                "this exposure is not yours to end; one of the configuration ends with it",
            )
            .about(name.to_owned()));
        }
        self.exposures.end(&exposure.spec.id);
        tracing::info!(
            audit = "tunnel.exposure_deleted",
            caller = %caller.principal,
            exposure = %exposure.spec.id,
            "an exposure was deleted"
        );
        Ok(())
    }

    /// What `caller`, who may see it, is shown of an exposure.
    fn show(&self, caller: &Caller, exposure: &Exposure) -> wire::Exposure {
        let (spec, origin) = (&exposure.spec, exposure.spec.origin.as_ref());
        let (failed_connections, last) = exposure.failures();
        wire::Exposure {
            name: spec.id.name(),
            endpoint: spec.endpoint.to_string(),
            target: spec.target.to_string(),
            listen_address: self.reached_at(exposure),
            project: origin.map(|origin| origin.owner.name()).unwrap_or_default(),
            creator: origin.map(|origin| origin.creator.clone()).unwrap_or_default(),
            limits: Some(wire::ExposureLimits {
                max_connections: spec.limits.max_connections,
                connections_per_second: spec.limits.connections_per_second,
            }),
            create_time: Some(exposure.created.into()),
            expire_time: origin.map(|origin| origin.expires.into()),
            connections: exposure.connections(),
            accepted_connections: exposure.accepted(),
            refused_connections: exposure.refused(),
            failed_connections,
            last_failure: last.map(|failure| self.show_failure(caller, exposure, failure)),
        }
    }

    /// By the name of its operator, where it was asked for.
    fn reached_at(&self, exposure: &Exposure) -> String {
        let rules = self.exposures.rules.as_ref().filter(|_| exposure.spec.origin.is_some());
        rules.map_or_else(
            || exposure.address.to_string(),
            |rules| rules.reached_at(exposure.address),
        )
    }

    /// The words may be the agent's, with hosts and paths of its machine: they are
    /// for those who would be told them if they dialed.
    fn show_failure(
        &self,
        caller: &Caller,
        exposure: &Exposure,
        failure: Failure,
    ) -> wire::ConnectionFailure {
        let spec = &exposure.spec;
        let owner = self.broker.owner(&spec.endpoint);
        let told = may_dial(&caller.principal, &spec.endpoint, &owner, &spec.target).is_ok();
        wire::ConnectionFailure {
            time: Some(failure.time.into()),
            reason: failure.reason.as_str().to_owned(),
            message: if told { failure.message } else { String::new() },
        }
    }
}

/// What was asked for, as far as the rules allow.
fn limits(rules: &ExposureRules, asked: Option<wire::ExposureLimits>) -> ExposureLimits {
    let asked = asked.unwrap_or_default();
    let bound = |asked: u32, most: u32| if asked == 0 { most } else { asked.min(most) };
    ExposureLimits {
        max_connections: bound(asked.max_connections, rules.limits.max_connections),
        connections_per_second: bound(
            asked.connections_per_second,
            rules.limits.connections_per_second,
        ),
    }
}

#[tonic::async_trait]
impl ExposureService for ExposureRpcs {
    async fn create_exposure(
        &self,
        request: Request<CreateExposureRequest>,
    ) -> Result<Response<CreateExposureResponse>, Status> {
        // Before the rules of the proto, which do not say what a target looks like.
        target::read(&request.get_ref().target).map_err(to_status)?;
        let (caller, request) = checked(request)?;
        let exposure = self.create(&caller, request).map_err(to_status)?;
        Ok(Response::new(CreateExposureResponse { exposure: Some(self.show(&caller, &exposure)) }))
    }

    async fn get_exposure(
        &self,
        request: Request<GetExposureRequest>,
    ) -> Result<Response<GetExposureResponse>, Status> {
        let (caller, request) = checked(request)?;
        let exposure = self.find(&caller, &request.name).map_err(to_status)?;
        Ok(Response::new(GetExposureResponse { exposure: Some(self.show(&caller, &exposure)) }))
    }

    async fn list_exposures(
        &self,
        request: Request<ListExposuresRequest>,
    ) -> Result<Response<ListExposuresResponse>, Status> {
        let (caller, request) = checked(request)?;
        let scope = format!("ListExposures {}", caller.principal);
        let after = page::decode(&request.page_token, &scope).map_err(to_status)?;
        let size = page::page_size(request.page_size) as usize;
        let mut shown: Vec<wire::Exposure> = self
            .exposures
            .list(after.as_deref())
            .iter()
            .filter(|exposure| may_see(&caller.principal, exposure.spec.origin.as_ref()))
            .take(size + 1)
            .map(|exposure| self.show(&caller, exposure))
            .collect();
        let more = shown.len() > size;
        shown.truncate(size);
        let next_page_token =
            match shown.last().and_then(|last| ExposureId::from_name(&last.name).ok()) {
                Some(last) if more => page::encode(last.as_str(), &scope),
                _ => String::new(),
            };
        Ok(Response::new(ListExposuresResponse { exposures: shown, next_page_token }))
    }

    async fn delete_exposure(
        &self,
        request: Request<DeleteExposureRequest>,
    ) -> Result<Response<DeleteExposureResponse>, Status> {
        let (caller, request) = checked(request)?;
        self.delete(&caller, &request.name).map_err(to_status)?;
        Ok(Response::new(DeleteExposureResponse {}))
    }
}

//! Exposures of a fake gateway.

use std::sync::{Arc, Mutex};

use tonic::{Request, Response, Status};
use wolfpack_proto::tunnel::v1 as pb;
use wolfpack_proto::tunnel::v1::exposure_service_server::ExposureService;
use wolfpack_rpc::error::to_status;
use wolfpack_types::{Fault, Reason};

/// Those that were made, with what was asked for; each has failed once.
#[derive(Clone, Default)]
pub(crate) struct Exposures(Arc<Mutex<Vec<pb::Exposure>>>);

impl Exposures {
    fn find(&self, name: &str) -> Result<usize, Status> {
        let at = self.0.lock().unwrap().iter().position(|one| one.name == name);
        at.ok_or_else(|| to_status(Fault::new(Reason::ExposureNotFound, "there is none")))
    }
}

#[tonic::async_trait]
impl ExposureService for Exposures {
    async fn create_exposure(
        &self,
        request: Request<pb::CreateExposureRequest>,
    ) -> Result<Response<pb::CreateExposureResponse>, Status> {
        let request = request.into_inner();
        if request.target == "tcp:22" {
            let fault = Fault::new(Reason::TargetForbidden, "add the port to targets.tcp");
            return Err(to_status(fault));
        }
        assert!(!request.request_id.is_empty(), "it may be sent again");
        let mut all = self.0.lock().unwrap();
        let life = request.lifetime.unwrap_or_default();
        let exposure = pb::Exposure {
            name: format!("exposures/e{}", all.len()),
            endpoint: request.endpoint,
            target: request.target,
            listen_address: format!("127.0.0.1:{}", request.port),
            limits: request.limits,
            expire_time: Some(prost_types::Timestamp { seconds: life.seconds, nanos: 0 }),
            accepted_connections: 3,
            failed_connections: 1,
            last_failure: Some(pb::ConnectionFailure {
                time: Some(prost_types::Timestamp { seconds: 60, nanos: 0 }),
                reason: "TARGET_UNREACHABLE".into(),
                message: "nothing listens".into(),
            }),
            ..Default::default()
        };
        all.push(exposure.clone());
        Ok(Response::new(pb::CreateExposureResponse { exposure: Some(exposure) }))
    }

    async fn get_exposure(
        &self,
        request: Request<pb::GetExposureRequest>,
    ) -> Result<Response<pb::GetExposureResponse>, Status> {
        let at = self.find(&request.into_inner().name)?;
        let exposure = Some(self.0.lock().unwrap()[at].clone());
        Ok(Response::new(pb::GetExposureResponse { exposure }))
    }

    async fn list_exposures(
        &self,
        _: Request<pb::ListExposuresRequest>,
    ) -> Result<Response<pb::ListExposuresResponse>, Status> {
        let exposures = self.0.lock().unwrap().clone();
        Ok(Response::new(pb::ListExposuresResponse { exposures, ..Default::default() }))
    }

    async fn delete_exposure(
        &self,
        request: Request<pb::DeleteExposureRequest>,
    ) -> Result<Response<pb::DeleteExposureResponse>, Status> {
        let at = self.find(&request.into_inner().name)?;
        self.0.lock().unwrap().remove(at);
        Ok(Response::new(pb::DeleteExposureResponse {}))
    }
}

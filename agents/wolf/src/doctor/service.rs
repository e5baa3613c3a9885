//! The doctor for the sandbox-manager, through the tunnel.

use std::time::{SystemTime, UNIX_EPOCH};

use futures::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status};
use wolfpack_proto::agent::v1::wolf_doctor_service_server::WolfDoctorService;
use wolfpack_proto::agent::v1::{EchoRequest, EchoResponse, RunChecksRequest, RunChecksResponse};
use wolfpack_rpc::checked;

use super::{Place, run_checks};

/// The largest message of an echo: what the contract allows, and its frame.
pub(crate) const ECHO_MESSAGE: usize = (1 << 20) + 1024;

/// The service; thin.
#[derive(Debug, Clone)]
pub(crate) struct Doctor {
    place: Place,
}

impl Doctor {
    pub(crate) fn new(place: Place) -> Self {
        Self { place }
    }
}

#[tonic::async_trait]
impl WolfDoctorService for Doctor {
    type RunChecksStream = BoxStream<'static, Result<RunChecksResponse, Status>>;

    async fn run_checks(
        &self,
        _: Request<RunChecksRequest>,
    ) -> Result<Response<Self::RunChecksStream>, Status> {
        let checks = run_checks(self.place.clone()).await;
        let answers = checks.map(|check| Ok(RunChecksResponse { check: Some(check.into()) }));
        Ok(Response::new(answers.boxed()))
    }

    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let (_, request) = checked(request)?;
        let bytes = usize::try_from(request.answer_bytes).unwrap_or_default();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Response::new(EchoResponse {
            payload: vec![0; bytes].into(),
            unix_nanos: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        }))
    }
}

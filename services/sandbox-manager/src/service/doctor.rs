//! `DoctorService`: the tunnel is measured from here, the rest is the wolf's to
//! say.

use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status};
use wolfpack_proto::agent::v1::RunChecksRequest;
use wolfpack_proto::sandbox::v1::doctor_service_server::DoctorService;
use wolfpack_proto::sandbox::v1::{CheckWolfRequest, CheckWolfResponse};
use wolfpack_rpc::checked;

use super::wolves::wolf_fault;
use super::{Api, tunnel_checks};

/// How long all checks of a wolf may take.
const CHECKS: Duration = Duration::from_secs(180);

#[tonic::async_trait]
impl DoctorService for Api {
    type CheckWolfStream = BoxStream<'static, Result<CheckWolfResponse, Status>>;

    async fn check_wolf(
        &self,
        request: Request<CheckWolfRequest>,
    ) -> Result<Response<Self::CheckWolfStream>, Status> {
        let (caller, message) = checked(request)?;
        let wolf = self.managed_wolf(&caller, &message.wolf).await?;
        let mut doctor = self.parts.peers.doctor(&wolf, caller.remaining(CHECKS));
        // A wolf that does not answer is no result but the end of the call.
        let trips = tunnel_checks::round_trips(&mut doctor).await;
        let trips = trips.map_err(|status| wolf_fault(&wolf, &status))?;
        let quick = stream::iter(trips.checks()).map(Ok);
        let mut measured = doctor.clone();
        let throughput =
            stream::once(
                async move { Ok::<_, Status>(tunnel_checks::throughput(&mut measured).await) },
            );
        let checks = async move {
            let checks = doctor.run_checks(RunChecksRequest {}).await?.into_inner();
            Ok::<_, Status>(checks.try_filter_map(|it| std::future::ready(Ok(it.check))))
        };
        let checks = stream::once(checks).try_flatten();
        let all = quick.chain(throughput).chain(checks).map(move |check| match check {
            Ok(check) => Ok(CheckWolfResponse { check: Some(check) }),
            Err(status) => Err(wolf_fault(&wolf, &status)),
        });
        Ok(Response::new(all.boxed()))
    }
}

//! `SandboxIoService`.

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::sandbox::v1::sandbox_io_service_server::SandboxIoService;
use wolfpack_proto::sandbox::v1::{
    ExecRequest, ExecResponse, StreamLogsRequest, StreamLogsResponse,
};
use wolfpack_rpc::{caller, checked};
use wolfpack_types::Role;

use super::Api;

#[tonic::async_trait]
impl SandboxIoService for Api {
    type ExecStream = BoxStream<'static, Result<ExecResponse, Status>>;
    type StreamLogsStream = BoxStream<'static, Result<StreamLogsResponse, Status>>;

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let caller = caller(&request);
        caller.require(Role::Developer)?;
        self.run(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn stream_logs(
        &self,
        request: Request<StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let (caller, message) = checked(request)?;
        let sandbox = self.sandbox(&caller, &message.sandbox).await?;
        self.logs(&sandbox, message).await.map(Response::new)
    }
}

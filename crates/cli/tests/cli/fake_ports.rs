//! Links of a fake gateway.

use tonic::{Request, Response, Status};
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::port_service_server::PortService;

/// Answers with what was asked for.
pub(crate) struct Ports;

#[tonic::async_trait]
impl PortService for Ports {
    async fn create_link(
        &self,
        request: Request<pb::CreateLinkRequest>,
    ) -> Result<Response<pb::CreateLinkResponse>, Status> {
        let request = request.into_inner();
        let life = request.life.unwrap_or_default().seconds;
        let url = match request.port {
            1 => String::new(),
            port => format!("http://{port}.test/{}?{life}", request.sandbox),
        };
        Ok(Response::new(pb::CreateLinkResponse { url, token: "wpl_t".into(), expire_time: None }))
    }
}

//! What a wolf's agent serves beside sandboxes: images, checks, containers.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::agent::v1::container_service_server::ContainerService;
use wolfpack_proto::agent::v1::wolf_doctor_service_server::WolfDoctorService;
use wolfpack_proto::agent::v1::wolf_image_service_server::WolfImageService;
use wolfpack_proto::agent::v1::*;
use wolfpack_proto::sandbox::v1::{
    Check, CheckOutcome, Container, ContainerRelation, Image, LoadAccepted, LoadDone,
};
use wolfpack_types::{Reason, WolfId};

use super::{World, fault};

/// One wolf, or the agent of a sandbox for its containers.
#[derive(Clone)]
pub(crate) struct WolfSide {
    pub(crate) world: World,
    pub(crate) wolf: Option<WolfId>,
}

fn image(name: &str) -> Image {
    Image { id: format!("sha256:{name}"), references: vec![name.into()], ..Image::default() }
}

#[tonic::async_trait]
impl WolfImageService for WolfSide {
    type LoadImageStream = BoxStream<'static, Result<LoadImageResponse, Status>>;

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let images = self.world.with(|state| state.images.iter().map(|it| image(it)).collect());
        Ok(Response::new(ListImagesResponse { images }))
    }

    /// Keeps what comes; an upload that breaks is gone on with. It is done at
    /// its size.
    async fn load_image(
        &self,
        request: Request<Streaming<LoadImageRequest>>,
    ) -> Result<Response<Self::LoadImageStream>, Status> {
        use load_image_request::Frame;
        let mut frames = request.into_inner();
        let Some(Frame::Start(start)) = frames.message().await?.and_then(|it| it.frame) else {
            return Err(fault(Reason::FirstMessageMissing, "start first"));
        };
        let (answers, told) = mpsc::channel(4);
        let world = self.world.clone();
        tokio::spawn(async move {
            let say = |frame| answers.send(Ok(LoadImageResponse { frame: Some(frame) }));
            let digest = start.sha256.clone();
            let have = world.with(|state| state.uploads.entry(digest.clone()).or_default().len());
            let accepted = LoadAccepted { offset: have as u64 };
            say(load_image_response::Frame::Accepted(accepted)).await.unwrap();
            while world.with(|state| state.uploads_stall) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            loop {
                let there = world.with(|state| state.uploads[&digest].len() as u64);
                if there == start.size_bytes {
                    let done = LoadDone { images: vec![image("loaded:1")] };
                    let _ = say(load_image_response::Frame::Done(done)).await;
                    return;
                }
                match frames.message().await {
                    Ok(Some(LoadImageRequest { frame: Some(Frame::Chunk(chunk)) })) => {
                        assert_eq!(chunk.offset, there);
                        world.with(|state| {
                            let upload = state.uploads.get_mut(&digest).unwrap();
                            upload.extend_from_slice(&chunk.data);
                        });
                    }
                    Ok(None) => {
                        world.with(|state| state.uploads_ended += 1);
                        let _ = answers.send(Err(fault(Reason::ConnectionReset, "early"))).await;
                        return;
                    }
                    _ => return world.with(|state| state.uploads_broken += 1),
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(told).boxed()))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let reference = request.into_inner().reference;
        if reference == "used:1" {
            return Err(fault(Reason::ImageInUse, "a container stands on it"));
        }
        self.world.with(|state| state.images.retain(|it| *it != reference));
        Ok(Response::new(RemoveImageResponse {}))
    }
}

#[tonic::async_trait]
impl WolfDoctorService for WolfSide {
    type RunChecksStream = BoxStream<'static, Result<RunChecksResponse, Status>>;

    async fn run_checks(
        &self,
        _: Request<RunChecksRequest>,
    ) -> Result<Response<Self::RunChecksStream>, Status> {
        let check = Check {
            id: "kernel.version".into(),
            outcome: CheckOutcome::Pass.into(),
            message: self.wolf.as_ref().unwrap().name(),
            ..Check::default()
        };
        let checks = [Ok(RunChecksResponse { check: Some(check) })];
        Ok(Response::new(stream::iter(checks).boxed()))
    }

    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let request = request.into_inner();
        wolfpack_rpc::check(&request)?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Ok(Response::new(EchoResponse {
            payload: vec![1; request.answer_bytes as usize].into(),
            unix_nanos: i64::try_from(since.as_nanos()).unwrap() + 5_000_000_000,
        }))
    }
}

#[tonic::async_trait]
impl ContainerService for WolfSide {
    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let relation = match self.wolf {
            Some(_) => ContainerRelation::Sibling,
            None => ContainerRelation::Nested,
        };
        let container = Container {
            id: request.into_inner().sandbox,
            relation: relation.into(),
            ..Container::default()
        };
        Ok(Response::new(ListContainersResponse { containers: vec![container] }))
    }
}

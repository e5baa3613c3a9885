//! `WolfImageService`: validate, map, call the images.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::agent::v1::wolf_image_service_server::WolfImageService;
use wolfpack_proto::agent::v1::{
    ListImagesRequest, ListImagesResponse, LoadImageRequest, LoadImageResponse, RemoveImageRequest,
    RemoveImageResponse, load_image_request, load_image_response,
};
use wolfpack_proto::sandbox::v1::{Image, LoadAccepted, LoadDone, LoadProgress, LoadStart};
use wolfpack_rpc::{check, checked, from_status, to_status};
use wolfpack_types::{Fault, Reason};

use crate::images::{Chunk, Images, Listed, LoadEvent, Upload};

/// How long a caller may take to say what it loads.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// The largest message: a chunk of 4 MiB and what is around it.
pub(crate) const LOAD_MESSAGE: usize = 5 << 20;

/// The service.
#[derive(Clone)]
pub(crate) struct ImageRpcs {
    images: Images,
}

impl ImageRpcs {
    pub(crate) fn new(images: Images) -> Self {
        Self { images }
    }
}

#[tonic::async_trait]
impl WolfImageService for ImageRpcs {
    type LoadImageStream = BoxStream<'static, Result<LoadImageResponse, Status>>;

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let images = self.images.list().await.map_err(to_status)?;
        Ok(Response::new(ListImagesResponse { images: images.into_iter().map(image).collect() }))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<LoadImageRequest>>,
    ) -> Result<Response<Self::LoadImageStream>, Status> {
        let mut frames = request.into_inner();
        let start = first(&mut frames).await?;
        let upload = Upload { digest: start.sha256, size: start.size_bytes };
        let chunks = frames.map(|frame| match frame {
            Ok(LoadImageRequest { frame: Some(load_image_request::Frame::Chunk(chunk)) }) => {
                Ok(Chunk { offset: chunk.offset, data: chunk.data })
            }
            Ok(_) => Err(Fault::new(
                Reason::RequestInvalid,
                "only the first message may be start; send chunks",
            )),
            Err(status) => Err(from_status(&status)),
        });
        let told = self.images.load(upload, chunks.boxed());
        let answers = stream::unfold(told, |mut told| async move {
            let event = told.recv().await?;
            Some((event.map(answer).map_err(to_status), told))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let (_, request) = checked(request)?;
        self.images.remove(&request.reference).await.map_err(to_status)?;
        Ok(Response::new(RemoveImageResponse {}))
    }
}

async fn first(frames: &mut Streaming<LoadImageRequest>) -> Result<LoadStart, Status> {
    let missing = || {
        to_status(Fault::new(
            Reason::FirstMessageMissing,
            "the first message must be start, within 10 seconds",
        ))
    };
    let first = tokio::time::timeout(FIRST_MESSAGE, frames.message()).await;
    match first.map_err(|_| missing())??.and_then(|message| message.frame) {
        Some(load_image_request::Frame::Start(start)) => {
            check(&start)?;
            Ok(start)
        }
        Some(load_image_request::Frame::Chunk(_)) | None => Err(missing()),
    }
}

fn answer(event: LoadEvent) -> LoadImageResponse {
    use load_image_response::Frame;
    let frame = match event {
        LoadEvent::Accepted(offset) => Frame::Accepted(LoadAccepted { offset }),
        LoadEvent::Progress(offset) => Frame::Progress(LoadProgress { offset }),
        LoadEvent::Done(images) => {
            Frame::Done(LoadDone { images: images.into_iter().map(image).collect() })
        }
    };
    LoadImageResponse { frame: Some(frame) }
}

fn image(listed: Listed) -> Image {
    let Listed { image, last_use } = listed;
    Image {
        id: image.id,
        references: image.references,
        size_bytes: image.size_bytes,
        create_time: image.created.map(Into::into),
        last_use_time: last_use.map(Into::into),
        containers: image.containers,
    }
}

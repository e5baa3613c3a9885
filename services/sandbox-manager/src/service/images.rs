//! `ImageService`: relayed to the wolf's agent. Of an archive nothing is kept
//! here: a piece is taken from the caller when the wolf asks for one.

use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::agent::v1 as agent;
use wolfpack_proto::sandbox::v1::image_service_server::ImageService;
use wolfpack_proto::sandbox::v1::{
    ListImagesRequest, ListImagesResponse, LoadImageRequest, LoadImageResponse, RemoveImageRequest,
    RemoveImageResponse, WolfLoadStart, load_image_request, load_image_response,
};
use wolfpack_rpc::{caller, check, checked, to_status};
use wolfpack_types::{Fault, Reason, WolfId};

use super::Api;
use super::wolves::wolf_fault;

/// How long a call may take that has no deadline.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a caller may take to say what it loads.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

#[tonic::async_trait]
impl ImageService for Api {
    type LoadImageStream = BoxStream<'static, Result<LoadImageResponse, Status>>;

    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let (caller, message) = checked(request)?;
        let wolf = self.managed_wolf(&caller, &message.wolf).await?;
        let mut images = self.parts.peers.images(&wolf, caller.remaining(DEADLINE));
        let listed = images.list_images(agent::ListImagesRequest {}).await;
        let listed = listed.map_err(|status| wolf_fault(&wolf, &status))?.into_inner();
        Ok(Response::new(ListImagesResponse { images: listed.images }))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<LoadImageRequest>>,
    ) -> Result<Response<Self::LoadImageStream>, Status> {
        let caller = caller(&request);
        let mut frames = request.into_inner();
        let start = first(&mut frames).await?;
        let wolf = self.managed_wolf(&caller, &start.wolf).await?;
        // Cancelled when the answer is dropped, or the caller's call breaks.
        let token = CancellationToken::new();
        let held = token.clone().drop_guard();
        let mut images = self.parts.peers.images_lasting(&wolf, token.clone());
        let load = agent::load_image_request::Frame::Start(start.load.unwrap_or_default());
        let load = agent::LoadImageRequest { frame: Some(load) };
        let sent = stream::iter([load]).chain(chunks(frames, token));
        let answers = images.load_image(sent).await;
        let answers = answers.map_err(|status| wolf_fault(&wolf, &status))?.into_inner();
        Ok(Response::new(relayed(answers, wolf, held).boxed()))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let (caller, message) = checked(request)?;
        let wolf = self.managed_wolf(&caller, &message.wolf).await?;
        let mut images = self.parts.peers.images(&wolf, caller.remaining(DEADLINE));
        let request = agent::RemoveImageRequest { reference: message.reference };
        images.remove_image(request).await.map_err(|status| wolf_fault(&wolf, &status))?;
        Ok(Response::new(RemoveImageResponse {}))
    }
}

async fn first(frames: &mut Streaming<LoadImageRequest>) -> Result<WolfLoadStart, Status> {
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

/// The caller's later messages as the wolf takes them. A call that breaks must
/// not look like its end: it resets the wolf's, which keeps what has come.
fn chunks(
    frames: Streaming<LoadImageRequest>,
    broken: CancellationToken,
) -> impl Stream<Item = agent::LoadImageRequest> + Send + 'static {
    stream::unfold((frames, broken), |(mut frames, broken)| async move {
        match frames.message().await {
            Ok(None) => None,
            Ok(Some(message)) => {
                let frame = message.frame.map(|frame| match frame {
                    load_image_request::Frame::Chunk(chunk) => {
                        agent::load_image_request::Frame::Chunk(chunk)
                    }
                    // The wolf refuses a second one.
                    load_image_request::Frame::Start(start) => {
                        agent::load_image_request::Frame::Start(start.load.unwrap_or_default())
                    }
                });
                Some((agent::LoadImageRequest { frame }, (frames, broken)))
            }
            Err(status) => {
                tracing::debug!(%status, "a caller's upload broke off");
                broken.cancel();
                std::future::pending().await
            }
        }
    })
}

fn relayed(
    answers: Streaming<agent::LoadImageResponse>,
    wolf: WolfId,
    held: DropGuard,
) -> impl Stream<Item = Result<LoadImageResponse, Status>> + Send + 'static {
    use agent::load_image_response::Frame as Said;
    use load_image_response::Frame;
    let mapped = |frame| match frame {
        Said::Accepted(accepted) => Frame::Accepted(accepted),
        Said::Progress(progress) => Frame::Progress(progress),
        Said::Done(done) => Frame::Done(done),
    };
    stream::unfold(Some((answers, wolf, held)), move |state| async move {
        let (mut answers, wolf, held) = state?;
        match answers.message().await {
            Ok(None) => None,
            Ok(Some(message)) => {
                let frame = message.frame.map(mapped);
                Some((Ok(LoadImageResponse { frame }), Some((answers, wolf, held))))
            }
            Err(status) => Some((Err(wolf_fault(&wolf, &status)), None)),
        }
    })
}

//! Wolves that take images, and break where a test wants it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, BytesMut};
use data_encoding::HEXLOWER;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::image_service_server::ImageService;
use wolfpack_proto::sandbox::v1::load_image_request::Frame;
use wolfpack_proto::sandbox::v1::load_image_response::Frame as Answer;
use wolfpack_types::Reason;

use crate::fake_gateway::{Answers, fault};

/// What came: for each wolf the bytes, and the offsets that calls began at.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) bytes: BytesMut,
    pub(crate) offsets: Vec<u64>,
}

#[derive(Clone, Default)]
pub(crate) struct Images(pub(crate) Arc<Mutex<BTreeMap<String, Came>>>);

/// The first call to each wolf breaks after so many bytes.
pub(crate) const BREAKS_AFTER: usize = 1 << 20;

fn image(name: &str) -> pb::Image {
    pb::Image {
        id: format!("sha256:{:064}", 7),
        references: vec![name.to_owned()],
        size_bytes: 3 << 20,
        containers: 2,
        ..Default::default()
    }
}

impl Images {
    async fn load(
        &self,
        requests: &mut Streaming<pb::LoadImageRequest>,
        send: &mpsc::Sender<Result<pb::LoadImageResponse, Status>>,
    ) -> Result<(), Status> {
        let Some(pb::LoadImageRequest { frame: Some(Frame::Start(start)) }) =
            requests.message().await?
        else {
            return Err(fault(Reason::FirstMessageMissing));
        };
        let load = start.load.unwrap();
        let answer = |frame| Ok(pb::LoadImageResponse { frame: Some(frame) });
        let (offset, first) = {
            let mut all = self.0.lock().unwrap();
            let came = all.entry(start.wolf.clone()).or_default();
            let offset = came.bytes.len() as u64;
            came.offsets.push(offset);
            (offset, came.offsets.len() == 1)
        };
        let _ = send.send(answer(Answer::Accepted(pb::LoadAccepted { offset }))).await;
        let mut have = usize::try_from(offset).unwrap();
        while (have as u64) < load.size_bytes {
            let Some(pb::LoadImageRequest { frame: Some(Frame::Chunk(chunk)) }) =
                requests.message().await?
            else {
                return Err(fault(Reason::ImageArchiveInvalid));
            };
            if chunk.offset != have as u64 {
                return Err(fault(Reason::Internal));
            }
            have += chunk.data.len();
            self.0.lock().unwrap().get_mut(&start.wolf).unwrap().bytes.put(chunk.data);
            let progress = pb::LoadProgress { offset: have as u64 };
            let _ = send.send(answer(Answer::Progress(progress))).await;
            if first && have >= BREAKS_AFTER {
                return Err(fault(Reason::TunnelLost));
            }
        }
        let sha256 = {
            let all = self.0.lock().unwrap();
            ring::digest::digest(&ring::digest::SHA256, &all[&start.wolf].bytes)
        };
        if HEXLOWER.encode(sha256.as_ref()) != load.sha256 {
            return Err(fault(Reason::ImageDigestMismatch));
        }
        let done = pb::LoadDone { images: vec![image("made:latest")] };
        let _ = send.send(answer(Answer::Done(done))).await;
        Ok(())
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        let wolf = request.into_inner().wolf;
        Ok(Response::new(pb::ListImagesResponse { images: vec![image(&format!("of-{wolf}:1"))] }))
    }

    type LoadImageStream = Answers<pb::LoadImageResponse>;

    async fn load_image(
        &self,
        request: Request<Streaming<pb::LoadImageRequest>>,
    ) -> Result<Response<Self::LoadImageStream>, Status> {
        let mut requests = request.into_inner();
        let (send, answers) = mpsc::channel(4);
        let images = self.clone();
        tokio::spawn(async move {
            if let Err(status) = images.load(&mut requests, &send).await {
                let _ = send.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }

    async fn remove_image(
        &self,
        request: Request<pb::RemoveImageRequest>,
    ) -> Result<Response<pb::RemoveImageResponse>, Status> {
        match request.into_inner().reference.as_str() {
            "used:1" => Err(fault(Reason::ImageInUse)),
            _ => Ok(Response::new(pb::RemoveImageResponse {})),
        }
    }
}

//! One archive to one wolf, gone on with after each break.

use std::io::SeekFrom;
use std::time::Duration;

use bytes::BytesMut;
use indicatif::ProgressBar;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::load_image_request::Frame;
use wolfpack_proto::sandbox::v1::load_image_response::Frame as Answer;
use wolfpack_types::{Fault, Reason};

use super::spool::Archive;
use crate::connect::Api;
use crate::failure::Failure;

/// A message; larger ones do not go faster.
const CHUNK: usize = 256 << 10;
/// Messages that wait for the connection before the file is not read.
const QUEUE: usize = 8;
/// Breaks in a row without a byte that arrived, and the pause between.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);
/// How long the wolf may say nothing while it takes the archive, and while its
/// engine loads it.
const SILENCE: Duration = Duration::from_secs(120);
const LOADING: Duration = Duration::from_secs(1800);

/// Sends the archive until the images are there.
pub(super) async fn run(
    api: &Api,
    wolf: &str,
    archive: &Archive,
    bar: &ProgressBar,
) -> Result<Vec<pb::Image>, Failure> {
    let mut attempt = 0;
    loop {
        let before = bar.position();
        match once(api, wolf, archive, bar).await {
            Ok(images) => return Ok(images),
            // One that leaves meanwhile may be back; one that was never there
            // must not hold up the others.
            Err(failure) if attempt == 0 && before == 0 && failure.is(Reason::WolfAway) => {
                return Err(failure);
            }
            Err(failure) if failure.is_passing() => {
                // What arrived is kept: only breaks that bring nothing count.
                attempt = if bar.position() > before { 1 } else { attempt + 1 };
                if attempt >= ATTEMPTS {
                    return Err(failure);
                }
                tokio::time::sleep(PAUSE * attempt).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

async fn once(
    api: &Api,
    wolf: &str,
    archive: &Archive,
    bar: &ProgressBar,
) -> Result<Vec<pb::Image>, Failure> {
    let (send, requests) = mpsc::channel(QUEUE);
    let load = pb::LoadStart { sha256: archive.sha256.clone(), size_bytes: archive.size };
    let start = pb::WolfLoadStart { wolf: wolf.to_owned(), load: Some(load) };
    // The queue is empty and its reader is here.
    let _ = send.try_send(pb::LoadImageRequest { frame: Some(Frame::Start(start)) });
    let calling = async {
        Ok::<_, Failure>(
            api.image_loads().load_image(ReceiverStream::new(requests)).await?.into_inner(),
        )
    };
    let mut answers = within(SILENCE, calling).await?;
    let accepted = match next(&mut answers, SILENCE).await? {
        Some(Answer::Accepted(accepted)) if accepted.offset <= archive.size => accepted.offset,
        _ => return Err(odd("it did not say where to go on")),
    };
    bar.set_position(accepted);
    // Sending and listening at once: a refusal must not wait for the whole file.
    let mut sending = std::pin::pin!(pump(archive, accepted, send));
    let mut sent = false;
    loop {
        let patience = if bar.position() >= archive.size { LOADING } else { SILENCE };
        tokio::select! {
            pumped = &mut sending, if !sent => {
                pumped?;
                sent = true;
            }
            answer = next(&mut answers, patience) => match answer? {
                Some(Answer::Progress(progress)) => bar.set_position(progress.offset),
                Some(Answer::Done(done)) => {
                    bar.set_position(archive.size);
                    return Ok(done.images);
                }
                Some(Answer::Accepted(_)) => return Err(odd("it accepted twice")),
                None => return Err(odd("it ended without the images")),
            }
        }
    }
}

/// Reads the file into the queue, as fast as that is emptied.
async fn pump(
    archive: &Archive,
    mut offset: u64,
    send: mpsc::Sender<pb::LoadImageRequest>,
) -> Result<(), Failure> {
    let broken = |error| Failure::file(&archive.path, &error);
    let mut file = File::open(&archive.path).await.map_err(broken)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(broken)?;
    while offset < archive.size {
        let mut data = BytesMut::with_capacity(CHUNK);
        let left = usize::try_from(archive.size - offset).unwrap_or(usize::MAX);
        while data.len() < CHUNK.min(left) {
            if file.read_buf(&mut data).await.map_err(broken)? == 0 {
                return Err(Failure::Local(format!(
                    "{} became shorter while it was sent",
                    archive.path.display()
                )));
            }
        }
        data.truncate(left);
        let data = data.freeze();
        let length = data.len() as u64;
        let chunk = pb::LoadChunk { offset, data };
        let request = pb::LoadImageRequest { frame: Some(Frame::Chunk(chunk)) };
        if send.send(request).await.is_err() {
            // The call is over; its status says why.
            return std::future::pending().await;
        }
        offset += length;
    }
    Ok(())
}

async fn next(
    answers: &mut tonic::Streaming<pb::LoadImageResponse>,
    patience: Duration,
) -> Result<Option<Answer>, Failure> {
    let message = within(patience, async { Ok(answers.message().await?) }).await?;
    Ok(message.and_then(|message| message.frame))
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result,
        Err(_) => Err(Fault::new(
            Reason::DependencyUnavailable,
            format!("the wolf said nothing for {} s; push again to go on", patience.as_secs()),
        )
        .into()),
    }
}

fn odd(what: &str) -> Failure {
    let words =
        format!("the server broke the protocol of LoadImage: {what}; is it of the same version?");
    Fault::new(Reason::Internal, words).into()
}

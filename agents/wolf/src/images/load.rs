//! Loading an archive: what the caller sends goes to the spool and to the
//! engine at the same time, through bounded channels only, so the slowest of
//! the three sets the pace and memory stays flat.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wolfpack_types::{Fault, Reason};

use super::spool::{Folder, Part};
use super::take::{Feed, Stopped, Taking};
use super::uploads::{Entered, Turn};
use super::{Images, Listed, PIECE};
use crate::engine::EngineError;
use crate::engine::images::Archive;

/// Pieces that wait between two stages.
const WAITING: usize = 8;
/// Events that wait for the caller.
const EVENTS: usize = 4;
/// How often progress is told, in bytes.
pub(super) const TOLD: u64 = 16 << 20;
/// A caller that sends nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// An engine that takes nothing for so long hangs.
const STALL: Duration = Duration::from_secs(180);
/// How long the engine may take to see that an archive broke off.
const ABORT: Duration = Duration::from_secs(10);

/// An archive that is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// SHA-256 of the whole, 64 hexadecimal digits.
    pub digest: String,
    /// Size of the whole in bytes.
    pub size: u64,
}

/// A part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// So much is there: send from here on.
    Accepted(u64),
    /// So much is on disk.
    Progress(u64),
    /// The images are there; nothing follows.
    Done(Vec<Listed>),
}

/// What the caller sends; an error is the end of the call.
pub type Chunks = BoxStream<'static, Result<Chunk, Fault>>;

/// How an upload failed.
enum Failed {
    /// It may be gone on with.
    Broken(Fault),
    /// Nothing of it stays.
    Refused(Fault),
}

impl Images {
    /// Begins to load an archive; the receiver hears how far it is, and one
    /// error or [`LoadEvent::Done`] at the end. Dropping it breaks the upload
    /// off, which can then be gone on with for a day.
    #[must_use]
    pub fn load(&self, upload: Upload, chunks: Chunks) -> mpsc::Receiver<Result<LoadEvent, Fault>> {
        let (events, told) = mpsc::channel(EVENTS);
        let images = self.clone();
        self.inner.supervisor.spawn("load-image", async move {
            let outcome = images.loading(&upload, chunks, &events).await;
            if let Err(fault) = &outcome {
                let source = fault.source.as_deref().map(tracing::field::display);
                tracing::warn!(digest = upload.digest, %fault, source, "an archive was not loaded");
            }
            // A caller that is gone is told nothing.
            let _ = events.send(outcome.map(LoadEvent::Done)).await;
        });
        told
    }

    async fn loading(
        &self,
        upload: &Upload,
        chunks: Chunks,
        events: &mpsc::Sender<Result<LoadEvent, Fault>>,
    ) -> Result<Vec<Listed>, Fault> {
        let turn = match self.inner.uploads.enter(&upload.digest).await? {
            Entered::Turn(turn) => turn,
            Entered::Loaded(names) => {
                let _ = events.send(Ok(LoadEvent::Accepted(upload.size))).await;
                return self.listed(&names).await;
            }
        };
        let folder = Folder::in_dir(&self.inner.data_dir);
        let outcome = self.through(upload, chunks, events, &turn, &folder).await;
        if !matches!(outcome, Err(Failed::Broken(_))) {
            let (folder, digest) = (folder.clone(), upload.digest.clone());
            let removed = tokio::task::spawn_blocking(move || folder.remove(&digest)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, digest = upload.digest, "an upload's file stays");
            }
        }
        match outcome {
            Ok(names) => {
                let listed = self.brought(&names).await;
                turn.loaded(names);
                tracing::info!(digest = upload.digest, images = listed.len(), "loaded an archive");
                Ok(listed)
            }
            Err(Failed::Broken(fault) | Failed::Refused(fault)) => Err(fault),
        }
    }

    /// Room and file for an upload.
    async fn part(&self, upload: &Upload, folder: &Folder) -> Result<Part, Failed> {
        let rooms = self.rooms(folder).await;
        let (folder, upload) = (folder.clone(), upload.clone());
        let (active, limit) = (self.inner.uploads.active(), self.inner.config.uploads_bytes);
        let opened = tokio::task::spawn_blocking(move || {
            let part = folder.open(&upload.digest, upload.size, &active, limit)?;
            rooms.fits(upload.size, part.have)?;
            Ok(part)
        });
        let opened = opened.await.map_err(|error| Failed::Refused(Fault::internal(error)))?;
        opened.map_err(Failed::Refused)
    }

    async fn through(
        &self,
        upload: &Upload,
        chunks: Chunks,
        events: &mpsc::Sender<Result<LoadEvent, Fault>>,
        turn: &Turn,
        folder: &Folder,
    ) -> Result<Vec<String>, Failed> {
        let Part { file, have } = self.part(upload, folder).await?;
        let synced = file.try_clone().map_err(|e| Failed::Broken(Fault::internal(e)))?;
        let _ = events.send(Ok(LoadEvent::Accepted(have))).await;
        let (pieces, coming) = mpsc::channel(WAITING);
        let (feed, fed) = mpsc::channel(WAITING);
        let (written, seen) = watch::channel(have);
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        let taking = Taking {
            digest: upload.digest.clone(),
            size: upload.size,
            file,
            have,
            rooms: self.rooms(folder).await,
            pieces: coming,
            feed,
            written,
            stop: stop.clone(),
        };
        let work = Work {
            pump: Some(pump(chunks, have, upload.size, pieces).boxed()),
            engine: Some(self.inner.store.load(archive(fed))),
            superseded: turn.superseded.clone(),
            stop,
        };
        let taken = tokio::task::spawn_blocking(move || taking.run());
        let telling = tell(seen, synced, events.clone());
        let working = work.run(taken, events);
        tokio::pin!(telling, working);
        tokio::select! {
            outcome = &mut working => outcome,
            () = &mut telling => working.await,
        }
    }
}

/// What runs at the same time.
struct Work<'a> {
    pump: Option<BoxFuture<'static, Result<mpsc::Sender<Bytes>, Fault>>>,
    engine: Option<BoxFuture<'a, Result<Vec<String>, EngineError>>>,
    superseded: CancellationToken,
    stop: CancellationToken,
}

type Taken = tokio::task::JoinHandle<Result<(), Stopped>>;
type Ended = Result<Result<(), Stopped>, tokio::task::JoinError>;

impl Work<'_> {
    /// Runs until the thread and the engine are done, or the upload broke.
    async fn run(
        mut self,
        mut taken: Taken,
        events: &mpsc::Sender<Result<LoadEvent, Fault>>,
    ) -> Result<Vec<String>, Failed> {
        let mut broken: Option<Fault> = None;
        let mut engine_said = None;
        // Kept so that the thread does not take the end of the pump for a break.
        let mut _pieces = None;
        let ended = loop {
            tokio::select! {
                ended = &mut taken => break ended,
                pumped = run(&mut self.pump), if self.pump.is_some() => {
                    self.pump = None;
                    match pumped {
                        Ok(pieces) => _pieces = Some(pieces),
                        Err(fault) => broken = broken.or(Some(fault)),
                    }
                }
                said = run(&mut self.engine), if self.engine.is_some() => {
                    self.engine = None;
                    engine_said = Some(said);
                }
                () = self.superseded.cancelled(), if broken.is_none() => {
                    broken = Some(Fault::new(
                        Reason::Superseded,
                        "a newer call loads the same archive and goes on with it",
                    ));
                }
                () = events.closed(), if broken.is_none() => {
                    broken = Some(Fault::new(Reason::Cancelled, "the caller went away"));
                }
            }
            if broken.is_some() {
                self.stop.cancel();
                self.pump = None;
                _pieces = None;
                break match tokio::time::timeout(ABORT, self.drain(&mut taken)).await {
                    Ok(ended) => ended,
                    // The thread waits for an engine that hangs.
                    Err(_) => {
                        self.engine = None;
                        taken.await
                    }
                };
            }
        };
        let said = match engine_said {
            Some(said) => Some(said),
            None => self.engine_end(matches!(ended, Ok(Ok(())))).await,
        };
        match (ended, said) {
            (Err(panicked), _) => Err(Failed::Refused(Fault::internal(panicked))),
            (Ok(Ok(())), Some(Ok(names))) => Ok(names),
            (Ok(Err(Stopped::Refused(fault))), _) => Err(Failed::Refused(fault)),
            (Ok(Err(Stopped::Broken)), _) => Err(Failed::Broken(broken.unwrap_or_else(early))),
            (Ok(Ok(()) | Err(Stopped::Engine)), Some(Err(error))) => Err(unloaded(error)),
            (Ok(Ok(()) | Err(Stopped::Engine)), _) => {
                Err(Failed::Broken(broken.unwrap_or_else(|| {
                    Fault::new(
                        Reason::EngineFailed,
                        "the engine of the wolf gave the archive up; try again",
                    )
                })))
            }
        }
    }

    /// Lets the engine read while the thread comes to its end.
    async fn drain(&mut self, taken: &mut Taken) -> Ended {
        loop {
            tokio::select! {
                ended = &mut *taken => return ended,
                _ = run(&mut self.engine), if self.engine.is_some() => self.engine = None,
            }
        }
    }

    /// What the engine says at the end: of a whole archive all in its time, of
    /// one that broke off soon.
    async fn engine_end(&mut self, whole: bool) -> Option<Result<Vec<String>, EngineError>> {
        let engine = self.engine.take()?;
        if whole {
            return Some(engine.await);
        }
        tokio::time::timeout(ABORT, engine).await.ok()
    }
}

/// The future in an option; never when there is none.
async fn run<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Takes what the caller sends, in order, and cuts it into pieces.
async fn pump(
    mut chunks: Chunks,
    have: u64,
    size: u64,
    pieces: mpsc::Sender<Bytes>,
) -> Result<mpsc::Sender<Bytes>, Fault> {
    let mut at = have;
    while at < size {
        let next = tokio::time::timeout(SILENCE, chunks.next()).await.map_err(|_| {
            Fault::new(
                Reason::DeadlineExceeded,
                format!("nothing came for {} s; call again to go on", SILENCE.as_secs()),
            )
        })?;
        let Chunk { offset, mut data } = next.ok_or_else(early)??;
        if offset != at || data.len() as u64 > size - at {
            return Err(Fault::new(
                Reason::RequestInvalid,
                format!(
                    "a chunk of {} bytes at {offset} came where {at} was due; call again to go on",
                    data.len()
                ),
            )
            .violates("chunk.offset", "follows the chunk before"));
        }
        at += data.len() as u64;
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            match tokio::time::timeout(STALL, pieces.send(piece)).await {
                Ok(Ok(())) => {}
                // The thread has ended and says why.
                Ok(Err(_)) => return Ok(pieces),
                Err(_) => {
                    return Err(Fault::new(
                        Reason::EngineFailed,
                        "the engine of the wolf takes nothing; try again, the wolf's log says why",
                    ));
                }
            }
        }
    }
    Ok(pieces)
}

fn early() -> Fault {
    Fault::new(Reason::ConnectionReset, "the upload ended early; call again to go on with it")
}

/// What the engine reads: an archive that ends well only when it is told to.
fn archive(fed: mpsc::Receiver<Feed>) -> Archive {
    stream::unfold(Some(fed), |fed| async move {
        let mut fed = fed?;
        match fed.recv().await {
            Some(Feed::Data(bytes)) => Some((Ok(bytes), Some(fed))),
            Some(Feed::End) => None,
            None => Some((Err(io::Error::other("the upload was given up")), None)),
        }
    })
    .boxed()
}

/// Tells now and then how much is on disk, after it is there.
async fn tell(
    mut written: watch::Receiver<u64>,
    file: std::fs::File,
    events: mpsc::Sender<Result<LoadEvent, Fault>>,
) {
    let file = std::sync::Arc::new(file);
    let mut told = *written.borrow();
    while written.changed().await.is_ok() {
        let at = *written.borrow_and_update();
        if at - told < TOLD {
            continue;
        }
        told = at;
        let file = file.clone();
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        if matches!(synced, Ok(Ok(()))) {
            // A caller that is behind hears the next one.
            let _ = events.try_send(Ok(LoadEvent::Progress(at)));
        }
    }
}

/// What an engine that could not load an archive means for the upload.
fn unloaded(error: EngineError) -> Failed {
    let full = error.to_string().contains("no space left");
    match error {
        EngineError::Unreachable(_) => Failed::Broken(error.into_fault("load the archive")),
        error if full => Failed::Refused(
            Fault::new(
                Reason::DiskFull,
                "the engine's disk is full; remove images or sandboxes, or use another wolf",
            )
            .caused_by(error),
        ),
        EngineError::Stream(words) => Failed::Refused(Fault::new(
            Reason::EngineFailed,
            format!("the engine of the wolf cannot use the archive: {words}"),
        )),
        EngineError::Refused { message, .. } => Failed::Refused(Fault::new(
            Reason::EngineFailed,
            format!("the engine of the wolf refused the archive: {message}"),
        )),
        error => Failed::Refused(error.into_fault("load the archive")),
    }
}

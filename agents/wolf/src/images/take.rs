//! One upload on its way through: checked, hashed and kept on a thread of its
//! own, and handed to the engine piece by piece, all but its tail. The engine
//! registers nothing before it has read the end, and gets that only when the
//! digest is right.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use bytes::{Bytes, BytesMut};
use ring::digest::{Context, SHA256};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wolfpack_types::{Fault, Reason};

use super::PIECE;
use super::archive::Checker;
use super::disk::Rooms;

/// The least that is held back of an archive until its digest is right: more
/// than the zeros that end it.
const TAIL: usize = 64 * 1024;
/// How often the disk is looked at, in bytes.
const LOOK: u64 = 64 << 20;

/// What goes to the engine.
pub(super) enum Feed {
    /// The next bytes.
    Data(Bytes),
    /// That was all, and all is well.
    End,
}

/// Why an upload was not taken to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// No more comes: the caller or the agent gave up. It may be gone on with.
    Broken,
    /// It is refused for good.
    Refused(Fault),
    /// The engine takes no more of it; it says why itself.
    Engine,
}

/// An upload to take.
pub(super) struct Taking {
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) file: File,
    /// How much is in the file already.
    pub(super) have: u64,
    pub(super) rooms: Rooms,
    pub(super) pieces: mpsc::Receiver<Bytes>,
    pub(super) feed: mpsc::Sender<Feed>,
    /// Told how much is in the file.
    pub(super) written: watch::Sender<u64>,
    /// Whether to stop handing on what came before.
    pub(super) stop: CancellationToken,
}

struct Through {
    checker: Checker,
    hash: Context,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    feed: mpsc::Sender<Feed>,
}

impl Taking {
    /// Runs to the end; blocking.
    pub(super) fn run(mut self) -> Result<(), Stopped> {
        let mut through = Through {
            checker: Checker::new(self.size),
            hash: Context::new(&SHA256),
            held: VecDeque::new(),
            held_bytes: 0,
            feed: self.feed.clone(),
        };
        self.again(&mut through)?;
        let mut at = self.have;
        let mut looked = at;
        self.file.seek(SeekFrom::Start(at)).map_err(unwritable)?;
        while at < self.size {
            // What has come is kept, also when no more comes.
            let piece = self.pieces.blocking_recv().ok_or(Stopped::Broken)?;
            through.check(&piece)?;
            self.file.write_all(&piece).map_err(unwritable)?;
            at += piece.len() as u64;
            self.written.send_replace(at);
            if at - looked >= LOOK {
                looked = at;
                self.rooms.hold().map_err(Stopped::Refused)?;
            }
            through.pass(piece)?;
        }
        through.finish(&self.digest)
    }

    /// What came before goes the same way.
    fn again(&mut self, through: &mut Through) -> Result<(), Stopped> {
        self.file.seek(SeekFrom::Start(0)).map_err(unwritable)?;
        let mut left = self.have;
        while left > 0 {
            if self.stop.is_cancelled() {
                return Err(Stopped::Broken);
            }
            let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let mut piece = BytesMut::zeroed(length);
            self.file.read_exact(&mut piece).map_err(unwritable)?;
            let piece = piece.freeze();
            left -= piece.len() as u64;
            through.check(&piece)?;
            through.pass(piece)?;
        }
        Ok(())
    }
}

impl Through {
    fn check(&mut self, piece: &Bytes) -> Result<(), Stopped> {
        self.checker.take(piece).map_err(invalid)?;
        self.hash.update(piece);
        Ok(())
    }

    /// Hands on what need not be held back.
    fn pass(&mut self, piece: Bytes) -> Result<(), Stopped> {
        self.held_bytes += piece.len();
        self.held.push_back(piece);
        while let Some(first) = self.held.front()
            && self.held_bytes - first.len() >= TAIL
        {
            self.hand_on()?;
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), Stopped> {
        let Some(first) = self.held.pop_front() else { return Ok(()) };
        self.held_bytes -= first.len();
        self.feed.blocking_send(Feed::Data(first)).map_err(|_| Stopped::Engine)
    }

    fn finish(mut self, digest: &str) -> Result<(), Stopped> {
        self.checker.finish().map_err(invalid)?;
        let hash = self.hash.clone().finish();
        let found = data_encoding::HEXLOWER.encode(hash.as_ref());
        if found != digest {
            return Err(Stopped::Refused(
                Fault::new(
                    Reason::ImageDigestMismatch,
                    "what came is not the archive that was announced; save the image again and \
                     send it anew",
                )
                .with("announced", digest)
                .with("found", found),
            ));
        }
        while !self.held.is_empty() {
            self.hand_on()?;
        }
        self.feed.blocking_send(Feed::End).map_err(|_| Stopped::Engine)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "an adapter of map_err")]
fn invalid(why: super::archive::BadArchive) -> Stopped {
    Stopped::Refused(Fault::new(
        Reason::ImageArchiveInvalid,
        format!("{why}; make the archive with `docker save`"),
    ))
}

fn unwritable(error: io::Error) -> Stopped {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Stopped::Refused(Fault::new(
            Reason::DiskFull,
            "the disk of the wolf is full; remove images or sandboxes, or use another wolf",
        ));
    }
    Stopped::Refused(Fault::internal(error))
}

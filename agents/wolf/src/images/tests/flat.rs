//! A large archive through an engine that reads when it is let: what is on its
//! way stays small.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream;
use ring::digest::Context as Hash;
use tokio::sync::Semaphore;

use super::*;
use crate::engine::images::Archive;

const CHUNK: usize = 1 << 20;
const LAYER: usize = 96 << 20;
/// The most that may be on its way: eight pieces to the thread, eight to the
/// engine, the tail, and one chunk with each end.
const ON_ITS_WAY: u64 = 8 << 20;
/// What waits at least when both queues are full: eight pieces each.
const FILLED: u64 = 16 * PIECE as u64;

/// An engine that reads one piece for each permit.
struct Slow {
    permits: Semaphore,
    read: Arc<AtomicU64>,
}

#[async_trait]
impl ImageStore for Slow {
    async fn images(&self) -> Result<Vec<StoredImage>, EngineError> {
        Ok(Vec::new())
    }

    async fn stored(&self, reference: &str) -> Result<Option<StoredImage>, EngineError> {
        Ok(Some(StoredImage { id: format!("sha256:{reference}"), ..StoredImage::default() }))
    }

    async fn load(&self, mut archive: Archive) -> Result<Vec<String>, EngineError> {
        loop {
            self.permits.acquire().await.unwrap().forget();
            match archive.next().await {
                Some(Ok(piece)) => self.read.fetch_add(piece.len() as u64, Ordering::SeqCst),
                Some(Err(error)) => return Err(EngineError::Stream(error.to_string())),
                None => return Ok(vec!["large:1".to_owned()]),
            };
        }
    }

    async fn data_root(&self) -> Result<Option<PathBuf>, EngineError> {
        Ok(None)
    }

    async fn remove_image(&self, _: &str) -> Result<bool, EngineError> {
        Ok(false)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_however_large_the_archive_and_slow_the_engine() {
    // One layer of zeros: the archive is made as it is sent, never held.
    let small = crate::engine::fake::archive("large:1", 0);
    let mut header = small[..512].to_vec();
    header[124..135].copy_from_slice(format!("{LAYER:011o}").as_bytes());
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let zeros = Bytes::from(vec![0; CHUNK]);
    let mut pieces = vec![Bytes::from(header)];
    pieces.extend(std::iter::repeat_n(zeros, LAYER / CHUNK));
    pieces.push(Bytes::copy_from_slice(&small[512..]));
    let mut hash = Hash::new(&SHA256);
    pieces.iter().for_each(|piece| hash.update(piece));
    let upload = Upload {
        digest: data_encoding::HEXLOWER.encode(hash.finish().as_ref()),
        size: pieces.iter().map(|piece| piece.len() as u64).sum(),
    };

    let dir = tempfile::tempdir().unwrap();
    let context = Context::quiet("wolf");
    let (sent, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let store = Arc::new(Slow { permits: Semaphore::new(0), read: read.clone() });
    let space = Space { total: 1 << 40, free: 1 << 40, device: 1 };
    let images = Images::new(Parts {
        store: store.clone(),
        config: config(),
        disk: Arc::new(FakeDisk(Mutex::new(space))),
        data_dir: dir.path().to_owned(),
        supervisor: context.supervisor.clone(),
    });
    let most = Arc::new(AtomicU64::new(0));
    let (counting, reading, seen) = (sent.clone(), read.clone(), most.clone());
    let mut offset = 0;
    let coming = stream::iter(pieces).map(move |data| {
        let chunk = Chunk { offset, data };
        offset += chunk.data.len() as u64;
        let sent = counting.fetch_add(chunk.data.len() as u64, Ordering::SeqCst);
        let waits = sent + chunk.data.len() as u64 - reading.load(Ordering::SeqCst);
        seen.fetch_max(waits, Ordering::SeqCst);
        Ok(chunk)
    });
    let mut told = images.load(upload.clone(), coming.boxed());
    assert_eq!(told.recv().await.unwrap().unwrap(), LoadEvent::Accepted(0));
    // The engine reads nothing: what is on its way fills up, and then nothing
    // more is taken from the caller, however long that has.
    let begun = std::time::Instant::now();
    while sent.load(Ordering::SeqCst) < FILLED {
        assert!(begun.elapsed() < WAIT, "the archive does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stalled = sent.load(Ordering::SeqCst);
    assert!(stalled < ON_ITS_WAY, "{stalled} bytes wait");
    // It reads on, and not to the end before progress was told: how long a disk
    // takes to keep what came is not for this test to say.
    store.permits.add_permits(usize::try_from(2 * super::load::TOLD).unwrap() / PIECE);
    let mut durable = 0;
    loop {
        match tokio::time::timeout(WAIT * 3, told.recv()).await.unwrap().unwrap().unwrap() {
            LoadEvent::Progress(at) => {
                assert!(at > durable && at <= upload.size);
                if durable == 0 {
                    store.permits.add_permits(Semaphore::MAX_PERMITS / 2);
                }
                durable = at;
            }
            LoadEvent::Done(images) => {
                assert_eq!(images[0].image.id, "sha256:large:1");
                break;
            }
            LoadEvent::Accepted(_) => panic!("twice"),
        }
    }
    assert_eq!(read.load(Ordering::SeqCst), upload.size);
    assert!(durable > 0, "progress was told");
    let most = most.load(Ordering::SeqCst);
    assert!(most < ON_ITS_WAY, "{most} bytes were on their way");
}

//! Images over the real client and a fake engine, and over a store that shows
//! how much is on its way.

mod disk;
mod flat;
mod loading;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use wolfpack_runtime::Context;

use super::*;
use crate::engine::DockerEngine;
use crate::engine::fake::FakeEngine;

const WAIT: Duration = Duration::from_secs(20);

/// A disk of which a test says how much is free.
struct FakeDisk(Mutex<Space>);

impl FakeDisk {
    fn free(&self, free: u64) {
        self.0.lock().free = free;
    }
}

impl DiskSource for FakeDisk {
    fn space(&self, _: &Path) -> Option<Space> {
        Some(*self.0.lock())
    }
}

struct Bench {
    dir: tempfile::TempDir,
    context: Context,
    fake: FakeEngine,
    disk: Arc<FakeDisk>,
    images: Images,
}

fn config() -> ImagesConfig {
    ImagesConfig { reserve_bytes: 1 << 20, reserve_percent: 0, ..ImagesConfig::default() }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let context = Context::quiet("wolf");
        let socket = dir.path().join("docker.sock");
        let fake = FakeEngine::start(&socket, &context.supervisor).unwrap();
        let disk =
            Arc::new(FakeDisk(Mutex::new(Space { total: 1 << 40, free: 1 << 40, device: 1 })));
        let images = Images::new(Parts {
            store: Arc::new(DockerEngine::new(fake.socket())),
            config: config(),
            disk: disk.clone(),
            data_dir: dir.path().to_owned(),
            supervisor: context.supervisor.clone(),
        });
        Self { dir, context, fake, disk, images }
    }

    /// What is kept of uploads, by digest and size.
    fn kept(&self) -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(self.dir.path().join("uploads")).into_iter().flatten();
        entries
            .flatten()
            .map(|it| (it.file_name().into_string().unwrap(), it.metadata().unwrap().len()))
            .collect()
    }

    fn assert_nothing_left(&self, name: &str) {
        assert_eq!(self.kept(), []);
        assert!(!self.fake.images().contains(&name.to_owned()), "{name} was loaded");
        assert!(self.images.inner.uploads.active().is_empty());
    }
}

fn digest_of(archive: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest(&SHA256, archive).as_ref())
}

fn upload(archive: &[u8]) -> Upload {
    Upload { digest: digest_of(archive), size: archive.len() as u64 }
}

/// Chunks of an archive from an offset on, each of so many bytes.
fn chunks(archive: &[u8], from: usize, step: usize) -> Vec<Result<Chunk, Fault>> {
    let rest = Bytes::copy_from_slice(&archive[from..]);
    let starts = (0..rest.len()).step_by(step);
    starts
        .map(|at| {
            let data = rest.slice(at..(at + step).min(rest.len()));
            Ok(Chunk { offset: (from + at) as u64, data })
        })
        .collect()
}

/// Loads with these chunks and then the end of the call.
async fn load(
    images: &Images,
    upload: Upload,
    chunks: Vec<Result<Chunk, Fault>>,
) -> (u64, Result<Vec<Listed>, Fault>) {
    let mut told = images.load(upload, futures::stream::iter(chunks).boxed());
    let mut accepted = 0;
    loop {
        match tokio::time::timeout(WAIT, told.recv()).await.unwrap() {
            Some(Ok(LoadEvent::Accepted(offset))) => accepted = offset,
            Some(Ok(LoadEvent::Progress(_))) => {}
            Some(Ok(LoadEvent::Done(images))) => return (accepted, Ok(images)),
            Some(Err(fault)) => return (accepted, Err(fault)),
            None => panic!("the load ended without a word"),
        }
    }
}

//! Images against a real Docker engine: an archive as `docker save` writes it
//! is loaded, one that breaks off is gone on with, one that is wrong leaves
//! nothing, one that is used stays.
//!
//! Runs where an engine answers on `/var/run/docker.sock` (or `DOCKER_HOST`, a
//! unix socket). Without one it says so and passes, except under `CI=true`,
//! where the engine must be there. `WOLFPACK_TEST_IMAGE_MIB` makes the image
//! larger, to compare the two times that are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use ring::digest::{SHA256, digest};
use wolfpack_runtime::Context;
use wolfpack_types::{Fault, Reason};
use wolfpack_wolf_agent::config::ImagesConfig;
use wolfpack_wolf_agent::engine::{DockerEngine, Engine as _};
use wolfpack_wolf_agent::images::{
    Chunk, DiskSource, HostDisk, Images, Listed, LoadEvent, Parts, Space, Upload,
};

const WAIT: Duration = Duration::from_secs(300);
const CHUNK: usize = 256 * 1024;
/// Of the image, unless it is said: more than an upload takes between two looks
/// at the disk.
const MIB: usize = 72;

async fn socket() -> Option<PathBuf> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "/var/run/docker.sock".to_owned());
    let socket = PathBuf::from(host.strip_prefix("unix://").unwrap_or(&host));
    match DockerEngine::new(&socket).info().await {
        Ok(_) => Some(socket),
        Err(error) => {
            let said = format!("NOT RUN: {} does not answer: {error}", socket.display());
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{said}");
            eprintln!("{said}");
            None
        }
    }
}

fn docker(arguments: &[&str], input: Option<&[u8]>) -> Vec<u8> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.unwrap_or_default().to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success(), "docker {arguments:?}");
    output.stdout
}

/// An image of this test's own; gone with it.
struct OwnImage {
    name: String,
    id: String,
}

impl OwnImage {
    fn make(what: &str) -> Self {
        let name = format!("wolfpack-test-load-{what}-{}:1", std::process::id());
        let mib = std::env::var("WOLFPACK_TEST_IMAGE_MIB").ok().and_then(|it| it.parse().ok());
        let mut content = vec![0; mib.unwrap_or(MIB) << 20];
        // Nothing that could be compressed away.
        let first = what.bytes().next().map_or(0, u32::from);
        let mut seed = (std::process::id() << 8) | first | 1 << 31;
        for byte in &mut content {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            *byte = seed.to_le_bytes()[0];
        }
        let mut rootfs = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        rootfs.append_data(&mut header, "content", content.as_slice()).unwrap();
        docker(&["import", "-", &name], Some(&rootfs.into_inner().unwrap()));
        let id = docker(&["image", "inspect", "--format", "{{.Id}}", &name], None);
        Self { name, id: String::from_utf8(id).unwrap().trim().to_owned() }
    }

    fn is_there(&self) -> bool {
        !docker(&["images", "--quiet", &self.name], None).is_empty()
    }
}

impl Drop for OwnImage {
    fn drop(&mut self) {
        let removed = Command::new("docker").args(["image", "rm", "--force", &self.name]).output();
        if let Err(error) = removed {
            eprintln!("{} stays: {error}", self.name);
        }
    }
}

fn hash(archive: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest(&SHA256, archive).as_ref())
}

/// Sends a part of an archive and then this, or nothing more; from where it was
/// taken, and how it ended.
async fn send(
    images: &Images,
    (archive, digest): (&Bytes, &str),
    part: std::ops::Range<usize>,
    ending: Option<Fault>,
    seen: impl Fn(usize) + Send + 'static,
) -> (u64, Result<Vec<Listed>, Fault>) {
    let upload = Upload { digest: digest.to_owned(), size: archive.len() as u64 };
    let (whole, starts) = (archive.clone(), part.clone().step_by(CHUNK));
    let chunks = starts.map(move |at| {
        seen(at);
        let data = whole.slice(at..(at + CHUNK).min(part.end));
        Ok(Chunk { offset: at as u64, data })
    });
    let chunks = stream::iter(chunks.chain(ending.map(Err)));
    let mut told = images.load(upload, chunks.boxed());
    let mut from = 0;
    loop {
        match tokio::time::timeout(WAIT, told.recv()).await.unwrap().unwrap() {
            Ok(LoadEvent::Done(loaded)) => return (from, Ok(loaded)),
            Ok(LoadEvent::Accepted(offset)) => from = offset,
            Ok(LoadEvent::Progress(_)) => {}
            Err(fault) => return (from, Err(fault)),
        }
    }
}

async fn load(images: &Images, archive: &Bytes, digest: &str) -> Result<Vec<Listed>, Fault> {
    send(images, (archive, digest), 0..archive.len(), None, |_| {}).await.1
}

/// A disk that is full from a moment on.
#[derive(Default)]
struct Filling(AtomicBool);

impl DiskSource for Filling {
    fn space(&self, _: &Path) -> Option<Space> {
        let free = if self.0.load(Ordering::SeqCst) { 0 } else { 1 << 40 };
        Some(Space { total: 1 << 40, free, device: 1 })
    }
}

/// The images of a wolf on the real engine.
struct Host {
    dir: tempfile::TempDir,
    context: Context,
    engine: DockerEngine,
    /// Where the engine unpacks archives, where that can be seen.
    unpacking: Option<PathBuf>,
    /// What was there before.
    before: Vec<std::ffi::OsString>,
}

impl Host {
    async fn new(socket: &Path) -> Self {
        let engine = DockerEngine::new(socket);
        let root = engine.info().await.unwrap().data_root;
        let unpacking = root.map(|root| root.join("tmp")).filter(|tmp| tmp.is_dir());
        let context = Context::quiet("wolf");
        let dir = tempfile::tempdir().unwrap();
        let host = Self { dir, context, engine, unpacking, before: Vec::new() };
        Self { before: host.unpacked(), ..host }
    }

    fn images(&self, disk: Arc<dyn DiskSource>, reserve_bytes: u64) -> Images {
        let config = ImagesConfig { reserve_bytes, reserve_percent: 0, ..ImagesConfig::default() };
        Images::new(Parts {
            store: Arc::new(self.engine.clone()),
            config,
            disk,
            data_dir: self.dir.path().to_owned(),
            supervisor: self.context.supervisor.clone(),
        })
    }

    /// What is kept of uploads, by size.
    fn kept(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(self.dir.path().join("uploads")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
    }

    /// Archives that the engine is unpacking.
    fn unpacked(&self) -> Vec<std::ffi::OsString> {
        let entries = self.unpacking.iter().flat_map(|tmp| std::fs::read_dir(tmp).unwrap());
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        let ours = |name: &std::ffi::OsString| {
            name.as_encoded_bytes().starts_with(b"docker-import-") && !self.before.contains(name)
        };
        names.retain(ours);
        names
    }

    /// No image, no upload, and soon nothing that the engine unpacked.
    async fn nothing_left(&self, own: &OwnImage, what: &str) {
        assert!(!own.is_there(), "{what}: the image is there");
        let by_id = Command::new("docker").args(["image", "inspect", &own.id]).output().unwrap();
        assert!(!by_id.status.success(), "{what}: the image is there without its name");
        assert!(self.kept().is_empty(), "{what}: its upload is kept");
        let begun = Instant::now();
        while !self.unpacked().is_empty() {
            assert!(begun.elapsed() < WAIT, "{what}: the engine keeps {:?}", self.unpacked());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The archive with one more entry before all others.
fn with_entry(archive: &Bytes, entry: &[u8]) -> Bytes {
    [entry, archive].concat().into()
}

/// An entry of one empty file whose path leads out, as no writer makes it.
fn leading_out() -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    let path = b"../../../../../../tmp/wolfpack-test-escaped";
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// The same by GNU's long name, with a harmless path of POSIX after it.
fn leading_out_twice() -> Vec<u8> {
    let mut entry = Vec::new();
    let path = b"../../../../../../tmp/wolfpack-test-escaped\0";
    for (kind, text) in
        [(tar::EntryType::GNULongName, &path[..]), (tar::EntryType::XHeader, b"11 path=ok\n")]
    {
        let mut header = tar::Header::new_ustar();
        header.set_path("record").unwrap();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        entry.extend_from_slice(header.as_bytes());
        entry.extend_from_slice(text);
        entry.resize(entry.len().div_ceil(512) * 512, 0);
    }
    let mut header = tar::Header::new_ustar();
    header.set_path("short").unwrap();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    entry.extend_from_slice(header.as_bytes());
    entry
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_refused_and_leaves_nothing_on_a_real_engine() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket).await;
    let images = host.images(Arc::new(HostDisk), 0);
    let own = OwnImage::make("wrong");
    let archive = Bytes::from(docker(&["save", &own.name], None));
    images.remove(&own.name).await.unwrap();
    host.nothing_left(&own, "removed").await;

    let refused = load(&images, &archive, &"0".repeat(64)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ImageDigestMismatch);
    host.nothing_left(&own, "wrong digest").await;
    for (what, bad) in [
        ("cut in its end", archive.slice(..archive.len() - 2_000)),
        ("cut in the layer", archive.slice(..archive.len() / 2)),
        ("cut in a header", archive.slice(..700)),
        ("a path leads out", with_entry(&archive, &leading_out())),
        ("a path leads out, said twice", with_entry(&archive, &leading_out_twice())),
    ] {
        let refused = load(&images, &bad, &hash(&bad)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::ImageArchiveInvalid, "{what}");
        host.nothing_left(&own, what).await;
    }
    assert!(!Path::new("/tmp/wolfpack-test-escaped").exists());

    // No room from the beginning, and no more when the engine has most of it.
    let full = host.images(Arc::new(HostDisk), u64::MAX / 2);
    let refused = load(&full, &archive, &hash(&archive)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::DiskFull);
    host.nothing_left(&own, "no room").await;
    assert!(archive.len() > MIB << 20, "it is looked at in between");
    let disk = Arc::new(Filling::default());
    let filling = host.images(disk.clone(), 1 << 20);
    let fill = move |at| disk.0.store(at >= 32 << 20, Ordering::SeqCst);
    let (_, outcome) =
        send(&filling, (&archive, &hash(&archive)), 0..archive.len(), None, fill).await;
    assert_eq!(outcome.unwrap_err().reason, Reason::DiskFull);
    host.nothing_left(&own, "the disk is full").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_broke_at_half_is_gone_on_with_on_a_real_engine() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket).await;
    let images = host.images(Arc::new(HostDisk), 0);
    let own = OwnImage::make("half");
    let archive = Bytes::from(docker(&["save", &own.name], None));
    images.remove(&own.name).await.unwrap();
    let half = archive.len() / 2 / CHUNK * CHUNK;
    let hash = hash(&archive);
    let broke = Fault::new(Reason::ConnectionReset, "the network broke");
    let (from, outcome) = send(&images, (&archive, &hash), 0..half, Some(broke), |_| {}).await;
    assert_eq!((from, outcome.unwrap_err().reason), (0, Reason::ConnectionReset));
    assert!(!own.is_there(), "half an archive is none");
    assert_eq!(host.kept(), [half as u64]);
    // Another process of the agent goes on.
    let images = host.images(Arc::new(HostDisk), 0);
    let (from, loaded) = send(&images, (&archive, &hash), half..archive.len(), None, |_| {}).await;
    assert_eq!(from, half as u64);
    assert!(loaded.unwrap()[0].image.references.contains(&own.name));
    let content = docker(&["image", "inspect", "--format", "{{.Id}}", &own.name], None);
    assert_eq!(String::from_utf8(content).unwrap().trim(), own.id, "it is the same image");
    assert!(host.kept().is_empty(), "{:?}", host.kept());
    images.remove(&own.name).await.unwrap();
    host.nothing_left(&own, "removed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_docker_saves_is_loaded_and_stays_while_it_is_used() {
    let Some(socket) = socket().await else { return };
    let host = Host::new(&socket).await;
    let images = host.images(Arc::new(HostDisk), 0);
    let own = OwnImage::make("good");
    let archive = Bytes::from(docker(&["save", &own.name], None));
    images.remove(&own.name).await.unwrap();
    assert!(!own.is_there());

    let begun = Instant::now();
    let loaded = load(&images, &archive, &hash(&archive)).await.unwrap();
    let ours = begun.elapsed();
    assert!(loaded[0].image.references.contains(&own.name), "{loaded:?}");
    assert!(own.is_there());
    assert!(host.kept().is_empty(), "{:?}", host.kept());

    let container = docker(&["create", &own.name, "/content"], None);
    let container = String::from_utf8(container).unwrap().trim().to_owned();
    let refused = images.remove(&own.name).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ImageInUse, "{refused}");
    let listed = images.list().await.unwrap();
    let found = listed.iter().find(|it| it.image.references.contains(&own.name)).unwrap();
    assert_eq!(found.image.containers, 1);
    docker(&["rm", &container], None);
    images.remove(&own.name).await.unwrap();
    assert!(!own.is_there());

    let begun = Instant::now();
    docker(&["load", "--quiet"], Some(&archive));
    let theirs = begun.elapsed();
    println!("{} bytes: {ours:?}, docker load {theirs:?}", archive.len());
}

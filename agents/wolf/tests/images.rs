//! Images against a real Docker engine: an archive as `docker save` writes it
//! is loaded, one that is wrong leaves nothing, one that is used stays.
//!
//! Runs where an engine answers on `/var/run/docker.sock` (or `DOCKER_HOST`, a
//! unix socket). Without one it says so and passes, except under `CI=true`,
//! where the engine must be there. `WOLFPACK_TEST_IMAGE_MIB` makes the image
//! larger, to compare the two times that are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use ring::digest::{SHA256, digest};
use wolfpack_runtime::Context;
use wolfpack_types::{Fault, Reason};
use wolfpack_wolf_agent::config::ImagesConfig;
use wolfpack_wolf_agent::engine::{DockerEngine, Engine as _};
use wolfpack_wolf_agent::images::{Chunk, HostDisk, Images, Listed, LoadEvent, Parts, Upload};

const WAIT: Duration = Duration::from_secs(300);
const CHUNK: usize = 256 * 1024;

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
struct OwnImage(String);

impl OwnImage {
    fn make() -> Self {
        let name = format!("wolfpack-test-load-{}:1", std::process::id());
        let mib = std::env::var("WOLFPACK_TEST_IMAGE_MIB").ok().and_then(|it| it.parse().ok());
        let mut content = vec![0; mib.unwrap_or(8) << 20];
        // Nothing that could be compressed away.
        let mut seed = std::process::id() | 1;
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
        Self(name)
    }

    fn is_there(&self) -> bool {
        !docker(&["images", "--quiet", &self.0], None).is_empty()
    }
}

impl Drop for OwnImage {
    fn drop(&mut self) {
        let removed = Command::new("docker").args(["image", "rm", "--force", &self.0]).output();
        if let Err(error) = removed {
            eprintln!("{} stays: {error}", self.0);
        }
    }
}

async fn load(images: &Images, archive: &Bytes, digest: &str) -> Result<Vec<Listed>, Fault> {
    let upload = Upload { digest: digest.to_owned(), size: archive.len() as u64 };
    let (whole, starts) = (archive.clone(), (0..archive.len()).step_by(CHUNK));
    let chunks = starts.map(move |at| {
        let data = whole.slice(at..(at + CHUNK).min(whole.len()));
        Ok(Chunk { offset: at as u64, data })
    });
    let chunks: Vec<_> = chunks.collect();
    let mut told = images.load(upload, stream::iter(chunks).boxed());
    loop {
        match tokio::time::timeout(WAIT, told.recv()).await.unwrap().unwrap()? {
            LoadEvent::Done(loaded) => return Ok(loaded),
            LoadEvent::Accepted(_) | LoadEvent::Progress(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_docker_saves_is_loaded_and_what_is_wrong_leaves_nothing() {
    let Some(socket) = socket().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let context = Context::quiet("wolf");
    let images = Images::new(Parts {
        store: Arc::new(DockerEngine::new(&socket)),
        config: ImagesConfig { reserve_bytes: 0, reserve_percent: 0, ..ImagesConfig::default() },
        disk: Arc::new(HostDisk),
        data_dir: dir.path().to_owned(),
        supervisor: context.supervisor.clone(),
    });
    let own = OwnImage::make();
    let archive = Bytes::from(docker(&["save", &own.0], None));
    let hash = data_encoding::HEXLOWER.encode(digest(&SHA256, &archive).as_ref());
    images.remove(&own.0).await.unwrap();
    assert!(!own.is_there());

    let refused = load(&images, &archive, &"0".repeat(64)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ImageDigestMismatch);
    let cut = archive.slice(..archive.len() - 2_000);
    let hash_of_cut = data_encoding::HEXLOWER.encode(digest(&SHA256, &cut).as_ref());
    let refused = load(&images, &cut, &hash_of_cut).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ImageArchiveInvalid);
    assert!(!own.is_there(), "the engine has nothing of an archive that was refused");
    assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);

    let begun = Instant::now();
    let loaded = load(&images, &archive, &hash).await.unwrap();
    let ours = begun.elapsed();
    assert!(loaded[0].image.references.contains(&own.0), "{loaded:?}");
    assert!(own.is_there());
    assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);

    let container = docker(&["create", &own.0, "/content"], None);
    let container = String::from_utf8(container).unwrap().trim().to_owned();
    let refused = images.remove(&own.0).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ImageInUse, "{refused}");
    let listed = images.list().await.unwrap();
    let found = listed.iter().find(|it| it.image.references.contains(&own.0)).unwrap();
    assert_eq!(found.image.containers, 1);
    docker(&["rm", &container], None);
    images.remove(&own.0).await.unwrap();
    assert!(!own.is_there());

    let begun = Instant::now();
    docker(&["load", "--quiet"], Some(&archive));
    let theirs = begun.elapsed();
    println!("{} bytes: {ours:?}, docker load {theirs:?}", archive.len());
}

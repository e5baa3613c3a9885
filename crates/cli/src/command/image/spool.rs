//! The archive of an image as a file with a known digest: the user's own, or
//! one that the user's Docker writes for us.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use data_encoding::HEXLOWER;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use ring::digest::{Context, SHA256};
use tempfile::NamedTempFile;

use crate::failure::Failure;

/// What is read of a file at once.
const PIECE: usize = 1 << 20;
/// How long the engine may be silent, in seconds.
const ENGINE_PATIENCE: u64 = 120;

/// An archive that is ready to be sent.
pub(super) struct Archive {
    pub(super) path: PathBuf,
    pub(super) sha256: String,
    pub(super) size: u64,
    /// A file of our own goes with it.
    _spool: Option<NamedTempFile>,
}

/// Whether a person means a file by it.
pub(super) fn is_file(given: &Path) -> bool {
    given.extension().is_some_and(|extension| extension == "tar")
        || given.is_absolute()
        || given.starts_with(".")
        || given.starts_with("..")
}

/// The digest and size of an archive that is there.
pub(super) async fn of_file(given: PathBuf) -> Result<Archive, Failure> {
    let path = given.clone();
    let read = tokio::task::spawn_blocking(move || {
        let broken = |error: std::io::Error| Failure::file(&path, &error);
        let mut file = File::open(&path).map_err(broken)?;
        let bar = bar("reading", file.metadata().map_err(broken)?.len());
        let (mut digest, mut size, mut piece) = (Context::new(&SHA256), 0_u64, vec![0; PIECE]);
        loop {
            let count = file.read(&mut piece).map_err(broken)?;
            if count == 0 {
                break;
            }
            digest.update(&piece[..count]);
            size += count as u64;
            bar.set_position(size);
        }
        bar.finish_and_clear();
        let sha256 = HEXLOWER.encode(digest.finish().as_ref());
        Ok::<_, Failure>((sha256, size))
    });
    let (sha256, size) = read.await.map_err(|error| Failure::Local(error.to_string()))??;
    if size == 0 {
        return Err(Failure::Local(format!("{} is empty", given.display())));
    }
    Ok(Archive { path: given, sha256, size, _spool: None })
}

/// Lets the user's Docker write the image to a file of our own.
pub(super) async fn of_engine(image: &str) -> Result<Archive, Failure> {
    let socket = socket()?;
    let docker = Docker::connect_with_unix(&socket, ENGINE_PATIENCE, API_DEFAULT_VERSION)
        .map_err(|error| unanswered(&socket, &error))?
        .negotiate_version()
        .await
        .map_err(|error| unanswered(&socket, &error))?;
    let found = docker.inspect_image(image).await.map_err(|error| match error {
        bollard::errors::Error::DockerResponseServerError { status_code: 404, .. } => {
            Failure::usage(format!(
                "the Docker engine at {socket} has no image {image:?}; pull or build it first, or give an archive such as ./image.tar"
            ))
        }
        error => unanswered(&socket, &error),
    })?;
    let spool = NamedTempFile::with_prefix("wolfpack-image-")
        .map_err(|error| Failure::file(&std::env::temp_dir(), &error))?;
    let full = |error| Failure::file(spool.path(), &error);
    let mut file = spool.as_file();
    let expected = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
    let bar = bar("exporting", expected);
    let (mut digest, mut size) = (Context::new(&SHA256), 0);
    let mut pieces = std::pin::pin!(docker.export_image(image));
    loop {
        let next = tokio::time::timeout(Duration::from_secs(ENGINE_PATIENCE), pieces.next());
        let piece = match next.await {
            Ok(Some(piece)) => piece.map_err(|error| unanswered(&socket, &error))?,
            Ok(None) => break,
            Err(_) => {
                return Err(Failure::Timeout(format!(
                    "the Docker engine at {socket} wrote nothing for {ENGINE_PATIENCE} s"
                )));
            }
        };
        digest.update(&piece);
        // A write to a file of this machine; between them the engine is read.
        file.write_all(&piece).map_err(full)?;
        size += piece.len() as u64;
        bar.set_position(size);
    }
    file.flush().map_err(full)?;
    bar.finish_and_clear();
    let sha256 = HEXLOWER.encode(digest.finish().as_ref());
    Ok(Archive { path: spool.path().to_owned(), sha256, size, _spool: Some(spool) })
}

/// The socket of the user's engine, as Docker's own command finds it.
fn socket() -> Result<String, Failure> {
    let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) else {
        return Ok("/var/run/docker.sock".to_owned());
    };
    match host.strip_prefix("unix://") {
        Some(path) => Ok(path.to_owned()),
        None => Err(Failure::usage(format!(
            "DOCKER_HOST is {host}, and only unix:// is spoken here; use `docker save` and push the archive"
        ))),
    }
}

fn unanswered(socket: &str, error: &bollard::errors::Error) -> Failure {
    Failure::Local(format!(
        "the Docker engine at {socket} does not do it: {error}; set DOCKER_HOST, or push an archive of `docker save`"
    ))
}

/// A bar on a terminal, nothing off it.
pub(super) fn bar(what: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = "{prefix} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_prefix(what);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_images_by_their_form() {
        for file in ["a.tar", "./a", "../a.tar", "/tmp/image", "dir/a.tar"] {
            assert!(is_file(Path::new(file)), "{file}");
        }
        for image in
            ["debian", "debian:12", "wolfpack/sandbox-base:latest", "host:5000/a/b@sha256:00"]
        {
            assert!(!is_file(Path::new(image)), "{image}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_once_for_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        std::fs::write(&path, "abc").unwrap();
        let archive = of_file(path.clone()).await.unwrap_or_else(|_| panic!());
        assert_eq!(archive.size, 3);
        assert_eq!(
            archive.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        std::fs::write(&path, "").unwrap();
        assert!(of_file(path).await.is_err());
    }
}

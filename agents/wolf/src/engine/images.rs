//! The images an engine holds.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::EngineError;

/// An image that the engine holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredImage {
    /// The engine's id of it, `sha256:...`.
    pub id: String,
    /// Its names with tag, then those with a digest.
    pub references: Vec<String>,
    /// Size on disk in bytes, layers it shares with others included.
    pub size_bytes: u64,
    /// When it was made, if the engine knows.
    pub created: Option<SystemTime>,
    /// How many containers, running or not, stand on it; only known by
    /// [`ImageStore::images`].
    pub containers: u32,
}

/// The bytes of an archive. An error in it makes the engine refuse the whole.
pub type Archive = BoxStream<'static, io::Result<Bytes>>;

/// An engine's store of images.
#[async_trait]
pub trait ImageStore: Send + Sync + 'static {
    /// Every image that is not only a layer of another.
    ///
    /// # Errors
    /// When the engine fails.
    async fn images(&self) -> Result<Vec<StoredImage>, EngineError>;

    /// One image, by name or id; `None` when it is not there.
    ///
    /// # Errors
    /// When the engine fails.
    async fn stored(&self, reference: &str) -> Result<Option<StoredImage>, EngineError>;

    /// Reads an archive as `docker save` writes it and returns the names, or
    /// the ids of those without one, of the images in it. Nothing of it is
    /// there before the archive was read to its end; an archive that breaks
    /// off, and a future that is dropped before that, leave nothing. There is
    /// no deadline before the end of the archive: the caller feeds it.
    ///
    /// # Errors
    /// When the archive breaks off, or the engine cannot use it.
    async fn load(&self, archive: Archive) -> Result<Vec<String>, EngineError>;

    /// Where images are kept on this host, if the engine says so.
    ///
    /// # Errors
    /// When the engine fails.
    async fn data_root(&self) -> Result<Option<PathBuf>, EngineError>;

    /// Takes a name from an image, and the image with its last name. Whether
    /// there was one.
    ///
    /// # Errors
    /// `Conflict` when a container stands on it, or when an id has several
    /// names.
    async fn remove_image(&self, reference: &str) -> Result<bool, EngineError>;
}

/// Whether a text is the name or id of an image by its form: nothing else may
/// become part of a path of the engine's API.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b);
    (1..=512).contains(&text.len())
        && text.bytes().all(allowed)
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The registry of a reference, as `docker login` names it.
#[must_use]
pub fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some(("index.docker.io", _)) | None => "docker.io",
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => host,
        Some(_) => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_never_a_way_out_of_its_path() {
        for good in ["debian", "a/b:1", "ghcr.io:5000/a/b@sha256:00", "sha256:0123"] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "../containers/x", "a/../b", "a//b", "/a", "a/", "a?force=1", "a b", "a%2f"]
        {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_without_a_host_is_of_the_public_registry() {
        for (reference, registry) in [
            ("debian:12", "docker.io"),
            ("wolfpack/x", "docker.io"),
            ("docker.io/library/x", "docker.io"),
            ("index.docker.io/library/x", "docker.io"),
            ("ghcr.io/a/b", "ghcr.io"),
            ("localhost/a", "localhost"),
            ("reg:5000/a", "reg:5000"),
        ] {
            assert_eq!(registry_of(reference), registry, "{reference}");
        }
    }
}

//! The images of this wolf: loading archives, listing, removing, and keeping
//! the disk from filling up.
//!
//! Only what this agent brought is ever removed without being asked to: an
//! engine may be somebody's own, with images of theirs.

mod archive;
mod disk;
mod hold;
mod keeper;
mod load;
mod pressure;
mod spool;
mod take;
mod uploads;
mod uses;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use wolfpack_proto::registry::v1::{WolfImage, WolfImages};
use wolfpack_runtime::{Supervisor, clock};
use wolfpack_types::{Fault, Reason};

use crate::config::ImagesConfig;
use crate::engine::images::{ImageStore, StoredImage, is_reference};
use crate::engine::{EngineError, image};

pub(crate) use disk::bytes;
pub use disk::{DiskSource, HostDisk, Space};
pub use hold::InUse;
pub use load::{Chunk, Chunks, LoadEvent, Upload};

/// How large the pieces are in which an archive goes through, in bytes.
pub(crate) const PIECE: usize = 256 * 1024;
/// The most images that a heartbeat tells.
const TOLD: usize = 256;
/// The most names of one image that a heartbeat tells, and the longest.
const NAMES: (usize, usize) = (16, 512);

/// An image with what this agent knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What the engine says.
    pub image: StoredImage,
    /// When a sandbox was last started from it.
    pub last_use: Option<SystemTime>,
}

/// The images of a wolf; cheap to clone.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ImageStore>,
    config: ImagesConfig,
    disk: Arc<dyn DiskSource>,
    data_dir: PathBuf,
    supervisor: Supervisor,
    uploads: uploads::Uploads,
    uses: Mutex<uses::Uses>,
    holds: hold::Holds,
    /// Something was brought, used or removed.
    changed: Notify,
    pressure: watch::Sender<String>,
    cached: watch::Sender<Arc<WolfImages>>,
}

/// What [`Images`] are made of.
pub struct Parts {
    /// The engine's store.
    pub store: Arc<dyn ImageStore>,
    /// What is kept.
    pub config: ImagesConfig,
    /// Measures the disks.
    pub disk: Arc<dyn DiskSource>,
    /// Where uploads and uses are kept.
    pub data_dir: PathBuf,
    /// Runs the work.
    pub supervisor: Supervisor,
}

impl Images {
    /// The images of a wolf. [`Images::keep`] must run beside. Reads a short
    /// file.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let uses = uses::UsesFile::in_dir(&parts.data_dir).read();
        Self {
            inner: Arc::new(Inner {
                store: parts.store,
                config: parts.config,
                disk: parts.disk,
                data_dir: parts.data_dir,
                supervisor: parts.supervisor,
                uploads: uploads::Uploads::default(),
                uses: Mutex::new(uses),
                holds: hold::Holds::default(),
                changed: Notify::new(),
                pressure: watch::Sender::new(String::new()),
                cached: watch::Sender::new(Arc::default()),
            }),
        }
    }

    /// Why nothing new should be placed here for want of disk; empty while
    /// there is enough. For heartbeats.
    #[must_use]
    pub fn disk_pressure(&self) -> watch::Receiver<String> {
        self.inner.pressure.subscribe()
    }

    /// The images that are there, those used last first, at most 256. For
    /// heartbeats.
    #[must_use]
    pub fn cached(&self) -> watch::Receiver<Arc<WolfImages>> {
        self.inner.cached.subscribe()
    }

    /// Keeps the image of this name from being removed while it is being made
    /// use of: from before it is looked for until a container stands on it.
    pub fn hold(&self, reference: &str) -> InUse {
        self.inner.holds.hold(&image::with_tag(reference))
    }

    /// A container was made from the image with this id.
    pub fn used(&self, id: &str) {
        self.inner.uses.lock().used(id, clock::now());
        self.inner.changed.notify_one();
    }

    /// This agent fetched the image with this id.
    pub fn fetched(&self, id: &str) {
        self.inner.uses.lock().brought(id, clock::now());
        self.inner.changed.notify_one();
    }

    /// Every image, by name.
    ///
    /// # Errors
    /// `ENGINE_FAILED`.
    pub async fn list(&self) -> Result<Vec<Listed>, Fault> {
        let images = self.inner.store.images().await;
        let images = images.map_err(|error| error.into_fault("list images"))?;
        let uses = self.inner.uses.lock();
        let mut listed: Vec<Listed> = images
            .into_iter()
            .map(|image| Listed { last_use: uses.last_use(&image.id), image })
            .collect();
        drop(uses);
        let key =
            |listed: &Listed| (listed.image.references.first().cloned(), listed.image.id.clone());
        // Those without a name come last.
        listed.sort_by_key(|it| (it.image.references.is_empty(), key(it)));
        Ok(listed)
    }

    /// Takes a name from an image, and the image with its last name; by id all
    /// of them. One that is not there is removed.
    ///
    /// # Errors
    /// `REQUEST_INVALID` for what is no name, `IMAGE_IN_USE`, `ENGINE_FAILED`.
    pub async fn remove(&self, reference: &str) -> Result<(), Fault> {
        if !is_reference(reference) {
            return Err(Fault::new(
                Reason::RequestInvalid,
                "that is not the name or id of an image",
            )
            .violates("reference", "is not the name or id of an image"));
        }
        let removed = self.removal(reference).await;
        self.inner.changed.notify_one();
        removed.map_err(|error| match error {
            EngineError::Conflict(words) => in_use(reference, &words),
            error => error.into_fault("remove the image"),
        })
    }

    async fn removal(&self, reference: &str) -> Result<(), EngineError> {
        let store = &self.inner.store;
        let Some(found) = store.stored(reference).await? else { return Ok(()) };
        let by_name = found.references.contains(&image::with_tag(reference));
        if self.inner.holds.holds(&found.references) {
            return Err(EngineError::Conflict("a sandbox is being started from it".to_owned()));
        }
        if by_name && found.references.len() > 1 {
            // A digest goes with the last tag of its repository.
            return store.remove_image(&image::with_tag(reference)).await.map(drop);
        }
        let standing =
            store.images().await?.iter().any(|it| it.id == found.id && it.containers > 0);
        if standing {
            return Err(EngineError::Conflict("a container stands on it".to_owned()));
        }
        self.remove_whole(&found).await
    }

    /// Removes an image with all its names.
    async fn remove_whole(&self, found: &StoredImage) -> Result<(), EngineError> {
        let store = &self.inner.store;
        for name in &found.references {
            store.remove_image(name).await?;
        }
        store.remove_image(&found.id).await.map(drop)
    }

    /// What was loaded under these names is this agent's.
    async fn brought(&self, names: &[String]) -> Vec<Listed> {
        let mut listed = Vec::new();
        for name in names {
            match self.inner.store.stored(name).await {
                Ok(Some(image)) => {
                    self.inner.uses.lock().brought(&image.id, clock::now());
                    let last_use = self.inner.uses.lock().last_use(&image.id);
                    if listed.iter().all(|it: &Listed| it.image.id != image.id) {
                        listed.push(Listed { image, last_use });
                    }
                }
                Ok(None) => tracing::warn!(name, "an image that was loaded is not there"),
                Err(error) => {
                    tracing::warn!(name, %error, "an image that was loaded cannot be read");
                }
            }
        }
        self.inner.changed.notify_one();
        listed
    }

    async fn listed(&self, names: &[String]) -> Result<Vec<Listed>, Fault> {
        Ok(self.brought(names).await)
    }

    async fn rooms(&self, folder: &spool::Folder) -> disk::Rooms {
        disk::Rooms {
            source: self.inner.disk.clone(),
            config: self.inner.config.clone(),
            uploads: folder.path().to_owned(),
            engine: self.inner.store.data_root().await.ok().flatten(),
        }
    }

    /// What a heartbeat tells, the images used last first.
    fn told(&self, images: &[StoredImage]) -> WolfImages {
        let uses = self.inner.uses.lock();
        let mut by_use: Vec<_> = images.iter().map(|it| (uses.last_use(&it.id), it)).collect();
        by_use.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.references.cmp(&b.1.references)));
        let image = |(_, image): (_, &StoredImage)| WolfImage {
            references: image
                .references
                .iter()
                .filter(|name| name.len() <= NAMES.1)
                .take(NAMES.0)
                .cloned()
                .collect(),
            id: image.id.clone(),
            size_bytes: image.size_bytes,
        };
        WolfImages { images: by_use.into_iter().map(image).take(TOLD).collect() }
    }
}

fn in_use(reference: &str, words: &str) -> Fault {
    Fault::new(
        Reason::ImageInUse,
        format!("{reference} is in use: {words}; delete what uses it first"),
    )
}

#[cfg(test)]
mod tests;

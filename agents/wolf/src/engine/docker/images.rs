//! The images of a Docker engine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bollard::models::ImageSummary;
use bollard::query_parameters::{
    ImportImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::oneshot;

use super::{DockerEngine, map};
use crate::engine::images::{Archive, ImageStore, StoredImage};
use crate::engine::{Engine as _, EngineError, ImageConfig};

const LIST: Duration = Duration::from_secs(30);
const REMOVE: Duration = Duration::from_secs(120);
/// From the end of an archive to the images: layers are unpacked then.
const UNPACK: Duration = Duration::from_secs(3_600);
/// The client's own bound of a load, far above what any upload is given.
const LOAD: Duration = Duration::from_secs(3 * 24 * 3_600);
const LOADED: [&str; 2] = ["Loaded image: ", "Loaded image ID: "];

#[async_trait]
impl ImageStore for DockerEngine {
    async fn images(&self) -> Result<Vec<StoredImage>, EngineError> {
        let options = ListImagesOptionsBuilder::new().build();
        let images =
            self.call("list images", LIST, |client| async move {
                client.list_images(Some(options)).await
            })
            .await?;
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self
            .call("list containers", LIST, |client| async move {
                client.list_containers(Some(options)).await
            })
            .await?;
        let mut standing: HashMap<String, u32> = HashMap::new();
        for image in containers.into_iter().filter_map(|container| container.image_id) {
            *standing.entry(image).or_default() += 1;
        }
        let counted = |image: ImageSummary| {
            let containers = standing.get(&image.id).copied().unwrap_or(0);
            StoredImage { containers, ..summary(image) }
        };
        Ok(images.into_iter().map(counted).collect())
    }

    async fn stored(&self, reference: &str) -> Result<Option<StoredImage>, EngineError> {
        let found = self
            .call("look for an image", LIST, |client| async move {
                client.inspect_image(reference).await
            })
            .await;
        let found = match found {
            Ok(found) => found,
            Err(EngineError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let size_bytes = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        let references = [found.repo_tags.clone(), found.repo_digests.clone()];
        let references = references.into_iter().flatten().flatten().collect();
        let ImageConfig { id, .. } = map::image(found);
        Ok(Some(StoredImage { id, references, size_bytes, created: None, containers: 0 }))
    }

    async fn load(&self, archive: Archive) -> Result<Vec<String>, EngineError> {
        let client = self.client().await?.as_ref().clone().with_timeout(LOAD);
        let (ended, end) = oneshot::channel::<()>();
        let mut ended = Some(ended);
        // Says when the last byte was handed over: the deadline runs from there.
        let archive = archive.map(Some).chain(futures::stream::once(async { None }));
        let archive = archive.filter_map(move |piece| {
            if piece.is_none() {
                ended.take().map(|ended| ended.send(()));
            }
            std::future::ready(piece)
        });
        let options = ImportImageOptionsBuilder::new().quiet(true).build();
        let mut answer = client.import_image_stream(options, archive, None).boxed();
        let reading = async {
            let mut loaded = Vec::new();
            while let Some(step) = answer.next().await {
                let words = step.map_err(map::error)?.stream.unwrap_or_default();
                for line in words.lines() {
                    let name = LOADED.into_iter().find_map(|prefix| line.strip_prefix(prefix));
                    loaded.extend(name.map(|name| name.trim().to_owned()));
                }
            }
            Ok(loaded)
        };
        let late = async {
            // A body that was dropped unread tells nothing; the answer does.
            if end.await.is_err() {
                return std::future::pending().await;
            }
            tokio::time::sleep(UNPACK).await;
        };
        tokio::select! {
            loaded = reading.fuse() => loaded,
            () = late => Err(EngineError::Deadline { doing: "load images", within: UNPACK }),
        }
    }

    async fn data_root(&self) -> Result<Option<PathBuf>, EngineError> {
        self.info().await.map(|info| info.data_root)
    }

    async fn remove_image(&self, reference: &str) -> Result<bool, EngineError> {
        let options = RemoveImageOptionsBuilder::new().build();
        let removed = self
            .call("remove an image", REMOVE, |client| async move {
                client.remove_image(reference, Some(options), None).await
            })
            .await;
        match removed {
            Ok(_) => Ok(true),
            Err(EngineError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// An image as a list shows it. The engine writes `<none>` for no name.
fn summary(image: ImageSummary) -> StoredImage {
    let created = u64::try_from(image.created).ok().filter(|seconds| *seconds > 0);
    let names = image.repo_tags.into_iter().chain(image.repo_digests);
    StoredImage {
        id: image.id,
        references: names.filter(|name| !name.contains("<none>")).collect(),
        size_bytes: u64::try_from(image.size).unwrap_or(0),
        created: created.map(instant),
        containers: 0,
    }
}

fn instant(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

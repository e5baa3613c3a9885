//! Keeps the disk from filling up, and what is known of images up to date.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wolfpack_runtime::clock;

use super::Images;
use super::disk::Space;
use super::pressure::{Marks, is_old, removable, words};
use super::spool::Folder;
use super::uses::UsesFile;
use crate::engine::EngineError;
use crate::engine::images::StoredImage;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often images are listed without a reason.
const LIST: Duration = Duration::from_secs(30);
/// How often what is too old is looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// When what was done last.
#[derive(Default)]
struct Done {
    listed: Option<Instant>,
    swept: Option<Instant>,
}

fn due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= every)
}

impl Images {
    /// Looks at the disk every few seconds: while it is short, says so first
    /// and then removes images, one after the other. Lists images, forgets old
    /// uploads, writes down uses. Ends when stopped.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut done = Done::default();
        loop {
            self.relieve().await;
            if due(done.swept, SWEEP) {
                done.swept = Some(Instant::now());
                self.sweep().await;
            }
            if due(done.listed, LIST) {
                done.listed = Some(Instant::now());
                self.refresh().await;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.inner.changed.notified() => {
                    done.listed = None;
                    self.write_uses().await;
                    // Changes come in groups.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                () = stop.cancelled() => break,
            }
        }
        self.write_uses().await;
    }

    /// Says whether the disk is short, and makes room while it is.
    pub(super) async fn relieve(&self) {
        while let Some((space, marks)) = self.look().await {
            let before = !self.inner.pressure.borrow().is_empty();
            let short = marks.is_short(space.free, before);
            self.say(if short { words(space, marks) } else { String::new() });
            if !short || !self.reclaim().await {
                return;
            }
        }
    }

    /// Resolves when the disk has come below its reserve.
    pub async fn full(&self) {
        loop {
            if let Some((space, marks)) = self.look().await
                && space.free < marks.reserve
            {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn say(&self, words: String) {
        self.inner.pressure.send_if_modified(|told| {
            if *told == words {
                return false;
            }
            if told.is_empty() {
                tracing::warn!(words, "the disk is short: nothing new is placed on this wolf");
            } else if words.is_empty() {
                tracing::info!("the disk has room again");
            }
            *told = words;
            true
        });
    }

    /// The shorter one of the engine's disk and ours.
    async fn look(&self) -> Option<(Space, Marks)> {
        let rooms = self.rooms(&Folder::in_dir(&self.inner.data_dir)).await;
        let config = self.inner.config.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let paths = [Some(rooms.uploads.clone()), rooms.engine.clone()];
            let spaces = paths.into_iter().flatten().filter_map(|path| rooms.source.space(&path));
            spaces
                .map(|space| (space, Marks::of(&config, space.total)))
                .min_by_key(|(space, marks)| space.free.saturating_sub(marks.short))
        });
        looked.await.ok().flatten()
    }

    /// Removes the image that was of use longest ago. Answers whether one was.
    async fn reclaim(&self) -> bool {
        let images = match self.inner.store.images().await {
            Ok(images) => images,
            Err(error) => {
                tracing::warn!(%error, "images cannot be listed; none make room");
                return false;
            }
        };
        let candidates: Vec<StoredImage> = {
            let uses = self.inner.uses.lock();
            let held = |names: &[String]| self.inner.holds.holds(names);
            let found = removable(&images, &uses, &self.inner.config, held);
            found.into_iter().map(|(_, image)| image.clone()).collect()
        };
        for image in candidates {
            if self.collect(&image).await {
                return true;
            }
        }
        false
    }

    /// Removes what nobody used for as long as images are kept, and what is
    /// left of old uploads.
    async fn sweep(&self) {
        let folder = Folder::in_dir(&self.inner.data_dir);
        let active = self.inner.uploads.active();
        let swept = tokio::task::spawn_blocking(move || folder.sweep(&active, clock::now())).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(%error, "old uploads stay");
        }
        let Ok(images) = self.inner.store.images().await else { return };
        let old: Vec<StoredImage> = {
            let mut uses = self.inner.uses.lock();
            uses.keep_only(|id| images.iter().any(|image| image.id == id));
            let held = |names: &[String]| self.inner.holds.holds(names);
            let found = removable(&images, &uses, &self.inner.config, held);
            let (keep, now) = (self.inner.config.keep, clock::now());
            let old = found.into_iter().filter(|(since, _)| is_old(*since, keep, now));
            old.map(|(_, image)| image.clone()).collect()
        };
        for image in old {
            self.collect(&image).await;
        }
    }

    /// Removes one image; whether it is gone. One that is being used stays.
    async fn collect(&self, image: &StoredImage) -> bool {
        match self.remove_whole(image).await {
            Ok(()) => {
                let name = image.references.first().unwrap_or(&image.id);
                tracing::info!(name, id = image.id, bytes = image.size_bytes, "an image made room");
                self.inner.changed.notify_one();
                true
            }
            Err(EngineError::Conflict(words)) => {
                tracing::debug!(id = image.id, words, "an image is in use and stays");
                false
            }
            Err(error) => {
                tracing::warn!(id = image.id, %error, "an image cannot be removed");
                false
            }
        }
    }

    /// Lists images for heartbeats.
    pub(super) async fn refresh(&self) {
        let Ok(images) = self.inner.store.images().await else { return };
        let told = self.told(&images);
        self.inner.cached.send_if_modified(|before| {
            let news = **before != told;
            if news {
                *before = Arc::new(told);
            }
            news
        });
    }

    async fn write_uses(&self) {
        let (file, uses) = (UsesFile::in_dir(&self.inner.data_dir), self.inner.uses.lock().clone());
        let written = tokio::task::spawn_blocking(move || file.write(&uses)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "last uses of images cannot be written down");
        }
    }
}

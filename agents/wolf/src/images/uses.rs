//! When images were last used, over restarts: the file `images.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const FILE: &str = "images.json";
/// The most images that are remembered; those used longest ago are forgotten.
const REMEMBERED: usize = 4_096;

/// What is known of one image, in seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    /// When a sandbox was last started from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    /// When this agent fetched or loaded it; absent when somebody else did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    brought: Option<u64>,
}

/// What is known of images, by the engine's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Uses {
    images: BTreeMap<String, Use>,
}

impl Uses {
    /// A sandbox was started from it.
    pub(super) fn used(&mut self, id: &str, now: SystemTime) {
        self.images.entry(id.to_owned()).or_default().used = Some(seconds(now));
        self.bound();
    }

    /// This agent put it there.
    pub(super) fn brought(&mut self, id: &str, now: SystemTime) {
        self.images.entry(id.to_owned()).or_default().brought = Some(seconds(now));
        self.bound();
    }

    /// When a sandbox was last started from it.
    pub(super) fn last_use(&self, id: &str) -> Option<SystemTime> {
        self.images.get(id)?.used.map(instant)
    }

    /// For an image that this agent put there: when it was last of use.
    pub(super) fn idle_since(&self, id: &str) -> Option<SystemTime> {
        let known = self.images.get(id)?;
        Some(instant(known.brought?.max(known.used.unwrap_or(0))))
    }

    /// Forgets images that are gone. Answers whether there were any.
    pub(super) fn keep_only(&mut self, there: impl Fn(&str) -> bool) -> bool {
        let before = self.images.len();
        self.images.retain(|id, _| there(id));
        self.images.len() != before
    }

    fn bound(&mut self) {
        while self.images.len() > REMEMBERED {
            let last = |known: &Use| known.used.max(known.brought);
            let oldest = self.images.iter().min_by_key(|(_, known)| last(known));
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { return };
            self.images.remove(&oldest);
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn instant(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

/// Where it is kept.
#[derive(Debug, Clone)]
pub(super) struct UsesFile {
    path: PathBuf,
}

impl UsesFile {
    pub(super) fn in_dir(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE) }
    }

    /// What was kept. A file that is damaged is as good as none: nothing is
    /// removed for it that would not be, only sooner or later.
    pub(super) fn read(&self) -> Uses {
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %self.path.display(), "last uses of images are lost");
                Uses::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Uses::default(),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "last uses of images cannot be read");
                Uses::default()
            }
        }
    }

    /// Writes it whole or not at all.
    pub(super) fn write(&self, uses: &Uses) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(uses)?)?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        instant(seconds)
    }

    #[test]
    fn uses_are_found_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = UsesFile::in_dir(dir.path());
        assert_eq!(file.read(), Uses::default());
        let mut uses = Uses::default();
        uses.brought("a", at(10));
        uses.used("a", at(20));
        uses.used("b", at(30));
        file.write(&uses).unwrap();
        let again = file.read();
        assert_eq!(again, uses);
        assert_eq!(again.last_use("a"), Some(at(20)));
        assert_eq!(again.idle_since("a"), Some(at(20)));
        assert_eq!(again.idle_since("b"), None, "somebody else put it there");
        fs::write(dir.path().join(FILE), b"{damaged").unwrap();
        assert_eq!(file.read(), Uses::default());
    }

    #[test]
    fn only_so_many_are_remembered_and_only_while_they_are_there() {
        let mut uses = Uses::default();
        for id in 0..REMEMBERED as u64 + 10 {
            uses.used(&format!("{id}"), at(1_000 + id));
        }
        assert_eq!(uses.images.len(), REMEMBERED);
        assert_eq!(uses.last_use("0"), None);
        assert!(uses.keep_only(|id| id == "100"));
        assert!(!uses.keep_only(|id| id == "100"));
    }
}

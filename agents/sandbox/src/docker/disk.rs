//! How much room the engine's data takes, and when that is too much.
//!
//! Where the file system keeps the data to its quota there is no bound to watch
//! here. Elsewhere the data is measured by walking it, which costs more the
//! more there is; between walks the free space of the whole file system shows
//! whether enough may have been written to look again at once.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::order::DiskUse;

/// How often the free space is looked at.
pub const TICK: Duration = Duration::from_secs(1);
/// Between two walks, when nothing hurries.
const CALM: Duration = Duration::from_secs(10);
/// A walk may take this share of the time: one part in so many.
const SHARE: u32 = 20;
/// As [`CALM`] and [`SHARE`] while somebody makes room and waits for it.
const EAGER: Duration = Duration::from_secs(2);
const EAGER_SHARE: u32 = 3;
/// Written since the last walk, it is never a reason to walk again.
const SMALL: u64 = 32 << 20;

/// Below this an engine that grew too large may write again.
#[must_use]
pub fn roomy(limit: u64) -> u64 {
    limit / 10 * 9 + limit % 10 * 9 / 10
}

/// Bytes on disk below a directory, on its own file system only: the merged
/// views of containers are mounts and would count twice. What vanishes while
/// it is walked does not count.
///
/// # Errors
/// When the directory itself cannot be read.
pub fn measure(root: &Path) -> io::Result<u64> {
    let top = std::fs::symlink_metadata(root)?;
    let mut folders = vec![root.to_owned()];
    let mut linked = HashSet::new();
    let mut used = blocks(&top);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() {
                continue;
            }
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.nlink() > 1 && !linked.insert(meta.ino()) {
                continue;
            }
            used += blocks(&meta);
        }
    }
    Ok(used)
}

fn blocks(meta: &std::fs::Metadata) -> u64 {
    meta.blocks() * 512
}

/// Measures the data as often as it is worth.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    limit: u64,
    walked: Option<Walk>,
}

#[derive(Debug)]
struct Walk {
    ended: Instant,
    took: Duration,
    used: u64,
    free: u64,
}

impl Watch {
    /// A watch over a directory and its bound in bytes.
    #[must_use]
    pub fn new(root: PathBuf, limit: u64) -> Self {
        Self { root, limit, walked: None }
    }

    /// The use, when it was measured anew; called every [`TICK`].
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn tick(&mut self) -> io::Result<Option<DiskUse>> {
        let free = free(&self.root)?;
        if self.walked.as_ref().is_some_and(|walk| !due(walk, Instant::now(), free, self.limit)) {
            return Ok(None);
        }
        let (root, began) = (self.root.clone(), Instant::now());
        let used = tokio::task::spawn_blocking(move || measure(&root)).await??;
        let ended = Instant::now();
        self.walked = Some(Walk { ended, took: ended - began, used, free });
        Ok(Some(DiskUse { used, limit: self.limit }))
    }
}

fn free(root: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(root)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

fn due(last: &Walk, now: Instant, free: u64, limit: u64) -> bool {
    let since = now.duration_since(last.ended);
    let written = last.free.saturating_sub(free);
    let margin = limit.saturating_sub(last.used);
    let hurries = written > SMALL.min(margin) && written > margin / 2;
    let (pause, share) =
        if last.used > roomy(limit) { (EAGER, EAGER_SHARE) } else { (CALM, SHARE) };
    since >= pause.max(last.took * share) || (hurries && since >= last.took * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_measured_once_per_file() {
        let folder = tempfile::tempdir().unwrap();
        let empty = measure(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/one"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(folder.path().join("a/one"), folder.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("all")).unwrap();
        let used = measure(folder.path()).unwrap() - empty;
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&used), "{used}");
        assert!(measure(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn it_hurries_when_the_rest_may_have_been_written() {
        let now = Instant::now();
        let walk = |took, used| Walk { ended: now, took, used, free: 100 << 30 };
        let quick = walk(Duration::from_millis(10), 8 << 30);
        let limit = 10 << 30;
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(!due(&quick, later(2), 100 << 30, limit), "nothing was written");
        assert!(due(&quick, later(2), 98 << 30, limit), "all of the rest was");
        assert!(!due(&quick, later(2), (100 << 30) - (16 << 20), limit), "a little was");
        assert!(due(&quick, later(10), 100 << 30, limit), "it is time");
        let slow = walk(Duration::from_secs(3), 8 << 30);
        assert!(!due(&slow, later(4), 0, limit), "walks take turns with work");
        assert!(!due(&slow, later(30), 100 << 30, limit));
        assert!(due(&slow, later(60), 100 << 30, limit));
        let full = walk(Duration::from_millis(10), 11 << 30);
        assert!(due(&full, later(1), (100 << 30) - 1, limit), "beyond it every byte counts");
        assert!(due(&full, later(2), 100 << 30, limit), "whoever makes room waits for it");
        assert!(!due(&walk(Duration::from_secs(1), 11 << 30), later(2), 100 << 30, limit));
    }

    #[test]
    fn roomy_is_nine_tenths() {
        assert_eq!(roomy(100), 90);
        assert_eq!(roomy(19), 17);
        assert_eq!(roomy(u64::MAX), u64::MAX / 10 * 9 + 4);
    }
}

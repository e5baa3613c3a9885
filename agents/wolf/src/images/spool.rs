//! Uploads on disk: `uploads/SHA256.part`, one file an upload, kept for a day
//! when the call broke.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wolfpack_types::{Fault, Reason};

use super::disk::bytes;

/// How long what came of a broken upload is kept.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 3_600);
const SUFFIX: &str = ".part";

/// The folder of the uploads.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

/// An upload's file.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: File,
    /// How much has come before.
    pub(super) have: u64,
}

/// What is known of a file.
struct Kept {
    digest: String,
    path: PathBuf,
    size: u64,
    changed: SystemTime,
}

impl Folder {
    pub(super) fn in_dir(data_dir: &Path) -> Self {
        Self { path: data_dir.join("uploads") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn part(&self, digest: &str) -> PathBuf {
        self.path.join(format!("{digest}{SUFFIX}"))
    }

    /// Opens an upload's file, with what came of it before. Others that are
    /// not `active` make room for it, the oldest first, when all together would
    /// be more than `limit`.
    ///
    /// # Errors
    /// `DISK_FULL` when there is no room under the limit, INTERNAL when the
    /// folder cannot be used.
    pub(super) fn open(
        &self,
        digest: &str,
        size: u64,
        active: &HashSet<String>,
        limit: u64,
    ) -> Result<Part, Fault> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(Fault::internal)?;
        self.make_room(digest, size, active, limit)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.part(digest)).map_err(Fault::internal)?;
        let mut have = file.metadata().map_err(Fault::internal)?.len();
        if have > size {
            // It was announced otherwise before.
            file.set_len(0).map_err(Fault::internal)?;
            have = 0;
        }
        Ok(Part { file, have })
    }

    fn make_room(
        &self,
        digest: &str,
        size: u64,
        active: &HashSet<String>,
        limit: u64,
    ) -> Result<(), Fault> {
        let mut others = self.kept().map_err(Fault::internal)?;
        others.retain(|kept| kept.digest != digest);
        others.sort_by_key(|kept| kept.changed);
        let mut taken: u64 = others.iter().map(|kept| kept.size).sum();
        for kept in others.iter().filter(|kept| !active.contains(&kept.digest)) {
            if taken.saturating_add(size) <= limit {
                break;
            }
            fs::remove_file(&kept.path).map_err(Fault::internal)?;
            taken = taken.saturating_sub(kept.size);
            tracing::info!(digest = kept.digest, "an upload that was not gone on with makes room");
        }
        if taken.saturating_add(size) > limit {
            return Err(Fault::new(
                Reason::DiskFull,
                format!(
                    "uploads to this wolf may take {} together; try again when the others are done",
                    bytes(limit)
                ),
            ));
        }
        Ok(())
    }

    /// Removes an upload's file.
    pub(super) fn remove(&self, digest: &str) -> io::Result<()> {
        match fs::remove_file(self.part(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what nobody went on with for a day.
    pub(super) fn sweep(&self, active: &HashSet<String>, now: SystemTime) -> io::Result<()> {
        for kept in self.kept()? {
            let age = now.duration_since(kept.changed).unwrap_or_default();
            if age > KEPT && !active.contains(&kept.digest) {
                fs::remove_file(&kept.path)?;
                tracing::info!(digest = kept.digest, "an upload that was not gone on with is gone");
            }
        }
        Ok(())
    }

    fn kept(&self) -> io::Result<Vec<Kept>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else {
                continue;
            };
            let metadata = entry.metadata()?;
            found.push(Kept {
                digest: digest.to_owned(),
                path: entry.path(),
                size: metadata.len(),
                changed: metadata.modified()?,
            });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Folder, digest: &str, length: u64, age: Duration) {
        let part = folder.open(digest, 1 << 20, &HashSet::new(), u64::MAX).unwrap();
        part.file.set_len(length).unwrap();
        part.file.set_modified(SystemTime::now() - age).unwrap();
    }

    fn names(folder: &Folder) -> Vec<String> {
        let mut names: Vec<_> =
            folder.kept().unwrap().into_iter().map(|kept| kept.digest).collect();
        names.sort();
        names
    }

    #[test]
    fn what_nobody_went_on_with_is_swept_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::in_dir(dir.path());
        folder.sweep(&HashSet::new(), SystemTime::now()).unwrap();
        write(&folder, "old", 1, KEPT + Duration::from_secs(60));
        write(&folder, "busy", 1, KEPT + Duration::from_secs(60));
        write(&folder, "new", 1, Duration::from_secs(60));
        folder.sweep(&HashSet::from(["busy".to_owned()]), SystemTime::now()).unwrap();
        assert_eq!(names(&folder), ["busy", "new"]);
    }

    #[test]
    fn the_oldest_make_room_and_those_under_way_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::in_dir(dir.path());
        write(&folder, "a", 40, Duration::from_secs(300));
        write(&folder, "b", 40, Duration::from_secs(200));
        write(&folder, "c", 40, Duration::from_secs(100));
        let active = HashSet::from(["a".to_owned()]);
        folder.open("d", 20, &active, 100).unwrap();
        assert_eq!(names(&folder), ["a", "c", "d"]);
        let full = folder.open("e", 70, &active, 100).unwrap_err();
        assert_eq!(full.reason, Reason::DiskFull);
    }

    #[test]
    fn what_came_before_is_found_unless_it_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::in_dir(dir.path());
        write(&folder, "a", 40, Duration::ZERO);
        assert_eq!(folder.open("a", 100, &HashSet::new(), 1_000).unwrap().have, 40);
        assert_eq!(folder.open("a", 30, &HashSet::new(), 1_000).unwrap().have, 0);
        folder.remove("a").unwrap();
        folder.remove("a").unwrap();
        assert_eq!(names(&folder), Vec::<String>::new());
    }
}

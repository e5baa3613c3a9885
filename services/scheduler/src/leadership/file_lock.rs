//! On SQLite one process at a time: an advisory lock on a file beside the
//! database, which the kernel drops when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock; `None` while another process has it. Does not wait.
    ///
    /// # Errors
    /// When the file cannot be made or locked at all.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Where the lock of a database file is: beside it. `None` for a database
    /// in memory, whose path is empty and which no other process can open.
    #[must_use]
    pub fn beside(database: &str) -> Option<PathBuf> {
        (!database.is_empty()).then(|| PathBuf::from(format!("{database}.scheduler.lock")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_waits_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::try_take(&path).unwrap();
        assert!(first.is_some());
        assert!(FileLock::try_take(&path).unwrap().is_none());
        drop(first);
        assert!(FileLock::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn the_lock_lies_beside_the_database() {
        assert_eq!(FileLock::beside("/a/b.db"), Some(PathBuf::from("/a/b.db.scheduler.lock")));
        assert_eq!(FileLock::beside(""), None);
    }
}

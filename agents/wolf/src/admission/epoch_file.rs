//! The newest scheduler epoch, on disk. Blocking: call from a blocking thread.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file with one number that only grows.
#[derive(Debug, Clone)]
pub struct EpochFile {
    path: PathBuf,
}

impl EpochFile {
    /// The file in this directory.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join("scheduler-epoch") }
    }

    /// The newest epoch; zero when none was seen.
    ///
    /// # Errors
    /// When the file is there and is not one number: admitting without it
    /// could let a deposed scheduler in, so say so instead.
    pub fn read(&self) -> io::Result<i64> {
        match fs::read_to_string(&self.path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                let path = self.path.display();
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{path} is damaged: write the scheduler's epoch there, or remove it"),
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Keeps a newer epoch; it is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, epoch: i64) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        let mut staged = tempfile::NamedTempFile::new_in(dir)?;
        writeln!(staged, "{epoch}")?;
        staged.as_file().sync_all()?;
        staged.persist(&self.path).map_err(|error| error.error)?;
        fs::File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_survives_and_damage_is_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        let file = EpochFile::in_dir(dir.path());
        assert_eq!(file.read().unwrap(), 0);
        file.write(41).unwrap();
        file.write(42).unwrap();
        assert_eq!(EpochFile::in_dir(dir.path()).read().unwrap(), 42);
        fs::write(dir.path().join("scheduler-epoch"), "").unwrap();
        assert!(file.read().is_err());
    }
}

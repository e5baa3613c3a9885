//! How much room there is, and how much is left free.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wolfpack_types::{Fault, Reason};

use crate::config::ImagesConfig;

/// Room on the file system of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Names the file system.
    pub device: u64,
}

/// Measures room; blocking and short.
pub trait DiskSource: Send + Sync + 'static {
    /// The room where this path is, or would be; `None` when it cannot be told.
    fn space(&self, path: &Path) -> Option<Space>;
}

/// The disks of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostDisk;

impl DiskSource for HostDisk {
    fn space(&self, path: &Path) -> Option<Space> {
        let there = path.ancestors().find(|path| path.exists())?;
        let stat = rustix::fs::statvfs(there).ok()?;
        Some(Space {
            total: stat.f_blocks.checked_mul(stat.f_frsize)?,
            free: stat.f_bavail.checked_mul(stat.f_frsize)?,
            device: std::fs::metadata(there).ok()?.dev(),
        })
    }
}

/// The disks that an upload takes room on, with the reserve that stays free.
#[derive(Clone)]
pub(crate) struct Rooms {
    pub(crate) source: Arc<dyn DiskSource>,
    pub(crate) config: ImagesConfig,
    /// Where uploads are kept.
    pub(crate) uploads: PathBuf,
    /// Where the engine keeps its data, once it is known.
    pub(crate) engine: Option<PathBuf>,
}

impl Rooms {
    /// Whether an archive of this size fits of which so much has come: what is
    /// to come in the upload; in the engine its unpacked archive and its
    /// layers. Blocking.
    ///
    /// # Errors
    /// `DISK_FULL`.
    pub(crate) fn fits(&self, size: u64, have: u64) -> Result<(), Fault> {
        self.leave(size.saturating_sub(have), size.saturating_mul(2))
    }

    /// Whether the reserve is still free. Blocking.
    ///
    /// # Errors
    /// `DISK_FULL`.
    pub(crate) fn hold(&self) -> Result<(), Fault> {
        self.leave(0, 0)
    }

    fn leave(&self, upload: u64, engine: u64) -> Result<(), Fault> {
        let kept = self.source.space(&self.uploads);
        let engine_at = self.engine.as_deref().and_then(|path| self.source.space(path));
        match (kept, engine_at) {
            (Some(kept), Some(other)) if kept.device != other.device => {
                self.room("the disk of data_dir", kept, upload)?;
                self.room("the engine's disk", other, engine)
            }
            (Some(one), _) | (None, Some(one)) => {
                self.room("the disk", one, upload.saturating_add(engine))
            }
            (None, None) => Ok(()),
        }
    }

    fn room(&self, what: &str, space: Space, needed: u64) -> Result<(), Fault> {
        let reserve = self.config.reserve(space.total);
        if space.free >= needed.saturating_add(reserve) {
            return Ok(());
        }
        Err(Fault::new(
            Reason::DiskFull,
            format!(
                "{what} of the wolf has {} free; this needs {} beside the reserve of {}: remove \
                 images or sandboxes, or use another wolf",
                bytes(space.free),
                bytes(needed),
                bytes(reserve)
            ),
        )
        .with("free_bytes", space.free.to_string())
        .with("reserve_bytes", reserve.to_string()))
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(amount: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in units {
        if amount >= size {
            return format!("{}.{} {unit}", amount / size, amount % size * 10 / size);
        }
    }
    format!("{amount} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two(Space, Space);

    impl DiskSource for Two {
        fn space(&self, path: &Path) -> Option<Space> {
            Some(if path.starts_with("/engine") { self.1 } else { self.0 })
        }
    }

    fn rooms(kept: (u64, u64), engine: (u64, u64)) -> Rooms {
        let space = |(free, device)| Space { total: 10_000, free, device };
        Rooms {
            source: Arc::new(Two(space(kept), space(engine))),
            config: ImagesConfig {
                reserve_bytes: 100,
                reserve_percent: 0,
                ..ImagesConfig::default()
            },
            uploads: "/data".into(),
            engine: Some("/engine".into()),
        }
    }

    #[test]
    fn an_archive_needs_its_size_three_times_on_one_disk_and_apart_on_two() {
        assert!(rooms((3_100, 1), (3_100, 1)).fits(1_000, 0).is_ok());
        let full = rooms((3_099, 1), (3_099, 1)).fits(1_000, 0).unwrap_err();
        assert_eq!(full.reason, Reason::DiskFull);
        assert!(rooms((2_600, 1), (2_600, 1)).fits(1_000, 500).is_ok());
        assert!(rooms((1_100, 1), (2_100, 2)).fits(1_000, 0).is_ok());
        assert!(rooms((1_099, 1), (2_100, 2)).fits(1_000, 0).is_err());
        assert!(rooms((1_100, 1), (2_099, 2)).fits(1_000, 0).is_err());
        assert!(rooms((100, 1), (100, 2)).hold().is_ok());
        assert!(rooms((99, 1), (100, 2)).hold().is_err());
    }

    #[test]
    fn the_host_has_a_disk() {
        let space = HostDisk.space(Path::new("/tmp/not/there")).unwrap();
        assert!(space.total >= space.free && space.total > 0);
    }

    #[test]
    fn amounts_are_for_people() {
        assert_eq!(bytes(1), "1 bytes");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }
}

//! Room on the disks.

use std::path::{Path, PathBuf};

use super::check::Found;
use super::place::Look;

/// Percent free below which it is low, and below which it is full.
const LOW: u64 = 15;
const FULL: u64 = 5;

/// What is left of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) total: u64,
    pub(super) free: u64,
}

pub(super) fn bytes(look: &Look) -> Found {
    let room = |path: &Path| {
        let stat = rustix::fs::statvfs(path).ok()?;
        let unit = stat.f_frsize;
        // Without what is set aside for root, as df counts.
        let total = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_add(stat.f_bavail);
        Some(Room { total: total.saturating_mul(unit), free: stat.f_bavail.saturating_mul(unit) })
    };
    worst(look, room).map_or_else(
        || Found::skip("how full the disks are cannot be told"),
        |(path, room)| judged(&path, room, "bytes"),
    )
}

pub(super) fn inodes(look: &Look) -> Found {
    let room = |path: &Path| {
        let stat = rustix::fs::statvfs(path).ok()?;
        // Some filesystems make inodes as they are needed and say zero.
        (stat.f_files > 0).then_some(Room { total: stat.f_files, free: stat.f_favail })
    };
    worst(look, room).map_or_else(
        || Found::skip("these filesystems have no fixed number of files"),
        |(path, room)| judged(&path, room, "inodes"),
    )
}

/// The fuller of the engine's data and the agent's.
fn worst(look: &Look, room: impl Fn(&Path) -> Option<Room>) -> Option<(PathBuf, Room)> {
    let data_root = look.place.at(&look.data_root().to_string_lossy());
    [data_root, look.place.data_dir.clone()]
        .into_iter()
        .filter_map(|path| {
            let there = path.ancestors().find(|path| path.exists())?;
            Some((path.clone(), room(there)?))
        })
        .min_by_key(|(_, room)| room.percent())
}

impl Room {
    fn percent(&self) -> u64 {
        u64::try_from(u128::from(self.free) * 100 / u128::from(self.total.max(1))).unwrap_or(100)
    }
}

pub(super) fn judged(path: &Path, room: Room, what: &str) -> Found {
    let percent = room.percent();
    let words = format!("{percent} % of the {what} at {} are free", path.display());
    let found = if percent < FULL {
        Found::fail(words, "free some now: sandboxes fail in ways that look like other things")
    } else if percent < LOW {
        Found::warn(words, "remove images nobody uses (wolfpack image), or give it a larger disk")
    } else {
        Found::pass(words)
    };
    found.fact("free", room.free).fact("total", room.total).fact("path", path.display())
}

//! How much room a folder takes on disk that somebody else writes to while it
//! is walked, and may try to hide in. Blocking.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

/// Folders in folders that are followed: each takes an open file.
const DEPTH: usize = 200;
/// Files with several names that are remembered.
const LINKED: usize = 1 << 20;
/// Entries between two looks at the clock.
const STRIDE: u32 = 1_024;

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    /// Bytes of allocated blocks.
    pub(super) bytes: u64,
    /// Whether all of it was seen.
    pub(super) whole: bool,
    /// Whether something cannot be seen however long it takes.
    pub(super) hidden: bool,
}

/// Counts what is below a folder, on its own file system only: merged views of
/// containers are mounts and would count twice. Each step is taken from the
/// folder before, never through a link, so that neither a link nor a long path
/// leads elsewhere. What vanishes meanwhile does not count; what is too deep,
/// cannot be read, or is not reached by the deadline leaves the count not whole.
///
/// # Errors
/// When the folder itself cannot be read.
pub(super) fn count(root: &Path, until: Instant) -> io::Result<Tree> {
    let top = openat(CWD, root, FOLDER, Mode::empty())?;
    let here = fstat(&top)?;
    let mut tree = Tree { bytes: blocks(&here), whole: true, hidden: false };
    let mut open = vec![Dir::new(top)?];
    let (mut linked, mut steps) = (HashSet::new(), 0u32);
    loop {
        let depth = open.len();
        let Some(folder) = open.last_mut() else { break };
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(STRIDE) && Instant::now() >= until {
            tree.whole = false;
            break;
        }
        let entry = match folder.read() {
            Some(Ok(entry)) => entry,
            ended => {
                if matches!(ended, Some(Err(_))) {
                    tree.hide();
                }
                open.pop();
                continue;
            }
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let at = folder.fd()?;
        let stat = match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_dev == here.st_dev => stat,
            Ok(_) | Err(Errno::NOENT) => continue,
            Err(_) => {
                tree.hide();
                continue;
            }
        };
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_folder && stat.st_nlink > 1 {
            if linked.len() >= LINKED {
                tree.hide();
                continue;
            }
            if !linked.insert(stat.st_ino) {
                continue;
            }
        }
        tree.bytes = tree.bytes.saturating_add(blocks(&stat));
        if is_folder {
            let below =
                (depth < DEPTH).then(|| openat(at, name, FOLDER, Mode::empty()).map(Dir::new));
            match below {
                Some(Ok(Ok(below))) => open.push(below),
                Some(Err(Errno::NOENT)) => {}
                _ => tree.hide(),
            }
        }
    }
    Ok(tree)
}

impl Tree {
    fn hide(&mut self) {
        self.whole = false;
        self.hidden = true;
    }
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::*;

    const M: u64 = 1 << 20;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn write(path: &Path, bytes: u64) {
        std::fs::write(path, vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    }

    #[test]
    fn blocks_count_once_and_links_lead_nowhere() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&other.path().join("theirs"), 8 * M);
        let empty = count(folder.path(), soon()).unwrap().bytes;
        std::fs::create_dir(folder.path().join("a")).unwrap();
        write(&folder.path().join("a/one"), M);
        std::fs::hard_link(folder.path().join("a/one"), folder.path().join("two")).unwrap();
        std::os::unix::fs::symlink(other.path(), folder.path().join("there")).unwrap();
        let sparse = std::fs::File::create(folder.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let found = count(folder.path(), soon()).unwrap();
        assert!(found.whole);
        let used = found.bytes - empty;
        assert!((M..M + (64 << 10)).contains(&used), "{used}");
        let linked = folder.path().join("there");
        assert!(count(&linked, soon()).is_err(), "the folder itself is no link");
        assert!(count(Path::new("/nowhere"), soon()).is_err());
    }

    /// Makes folders in folders from a place on; their path is too long to be
    /// given at once.
    fn deep(root: &Path, depth: usize) -> OwnedFd {
        let mut at = openat(CWD, root, FOLDER, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, &name, Mode::from_raw_mode(0o755)).unwrap();
            at = openat(&at, &name, FOLDER, Mode::empty()).unwrap();
        }
        at
    }

    #[test]
    fn no_path_is_too_long_and_what_is_too_deep_is_said_to_be_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let below = deep(folder.path(), 100);
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file = openat(&below, "big", flags, Mode::from_raw_mode(0o600)).unwrap();
        let mut file = std::fs::File::from(file);
        std::io::Write::write_all(&mut file, &vec![1; 4 << 20]).unwrap();
        let found = count(folder.path(), soon()).unwrap();
        assert!(found.whole && found.bytes >= 4 * M, "{found:?}");
        let deeper = tempfile::tempdir().unwrap();
        deep(deeper.path(), DEPTH + 1);
        assert!(!count(deeper.path(), soon()).unwrap().whole);
    }

    #[test]
    fn a_walk_ends_at_its_deadline_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        for at in 0..STRIDE {
            write(&folder.path().join(at.to_string()), 0);
        }
        assert!(!count(folder.path(), Instant::now()).unwrap().whole);
        assert!(count(folder.path(), soon()).unwrap().whole);
    }
}

//! What checks are tried on.

use std::path::{Path, PathBuf};

/// A disk of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) name: String,
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// A directory to mount on, in a namespace of one's own.
pub(super) fn directory() -> Option<PathBuf> {
    ["/tmp", "/mnt", "/media", "/run", "/dev/shm"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_dir())
}

/// Block devices of the host, the largest real one first, then loop devices and
/// their like, at most six: who may open one of those may open others.
pub(super) fn disks() -> Vec<Disk> {
    let mut found: Vec<(Disk, u64)> = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| of_sys(&entry))
        .collect();
    if found.is_empty() {
        found = partitions(&std::fs::read_to_string("/proc/partitions").unwrap_or_default());
    }
    ordered(found)
}

fn of_sys(entry: &std::fs::DirEntry) -> Option<(Disk, u64)> {
    let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok();
    let (major, minor) =
        read("dev")?.trim().split_once(':').map(|(a, b)| (a.parse(), b.parse()))?;
    let name = entry.file_name().into_string().ok()?;
    let size = read("size").and_then(|size| size.trim().parse().ok()).unwrap_or_default();
    Some((Disk { name, major: major.ok()?, minor: minor.ok()? }, size))
}

fn partitions(text: &str) -> Vec<(Disk, u64)> {
    text.lines()
        .filter_map(|line| {
            let parts: Vec<&str> = line.split_whitespace().collect();
            let &[major, minor, blocks, name] = parts.as_slice() else { return None };
            let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
            Some((Disk { name: name.to_owned(), major, minor }, blocks.parse().ok()?))
        })
        .collect()
}

fn ordered(mut found: Vec<(Disk, u64)>) -> Vec<Disk> {
    const MOST: usize = 6;
    let made_up =
        |name: &str| ["loop", "ram", "zram", "sr", "fd"].iter().any(|p| name.starts_with(p));
    found.sort_by_key(|(disk, size)| {
        (made_up(&disk.name), std::cmp::Reverse(*size), disk.name.clone())
    });
    found.truncate(MOST);
    found.into_iter().map(|(disk, _)| disk).collect()
}

/// A kind of file system that is read only by nature, so that asking for a
/// mount of a disk with it can write nothing, and that the kernel has already:
/// another would be loaded.
pub(super) fn harmless_file_system() -> Option<String> {
    let known = std::fs::read_to_string("/proc/filesystems").ok()?;
    let has = |kind: &str| known.lines().any(|line| line.trim() == kind);
    ["squashfs", "erofs", "iso9660", "cramfs", "romfs"]
        .into_iter()
        .find(|kind| has(kind))
        .map(str::to_owned)
}

/// Places where a node can be made and opened.
pub(super) fn folders() -> impl Iterator<Item = &'static Path> {
    ["/dev", "/", "/run", "/tmp"].into_iter().map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_real_disk_comes_first() {
        let text = "major minor  #blocks  name\n\n 7 0 999999999 loop0\n 254 0 100 vda\n 254 16 2000 vdb\n";
        let names: Vec<String> = ordered(partitions(text)).into_iter().map(|d| d.name).collect();
        assert_eq!(names, ["vdb", "vda", "loop0"]);
        assert!(partitions("major minor #blocks name\n").is_empty());
    }
}

//! What sandboxes keep of files that are deleted: it takes room as long as they
//! are open, and no folder shows it. Blocking.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

/// Open files that are looked at of one process.
const FILES: usize = 65_536;

/// Bytes of open, deleted files by container, of those that are asked for, by
/// the processes below a `/proc`. Files of the disk `device` count, and of the
/// root that a process sees, not memory. What cannot be read, or is not reached
/// by the deadline, does not count.
pub(super) fn count(
    proc: &Path,
    containers: &[String],
    device: u64,
    until: Instant,
) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut counted = HashSet::new();
    for process in std::fs::read_dir(proc).into_iter().flatten().flatten() {
        if Instant::now() >= until {
            break;
        }
        let name = process.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let process = process.path();
        // The path of its control group has the container's id in it, that of
        // a container in a container too.
        let Ok(groups) = std::fs::read_to_string(process.join("cgroup")) else { continue };
        let Some(container) = containers.iter().find(|id| groups.contains(id.as_str())) else {
            continue;
        };
        let root = std::fs::metadata(process.join("root")).ok().map(|root| root.dev());
        let on_disk = |file: &Metadata| file.dev() == device || Some(file.dev()) == root;
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        for file in files.take(FILES) {
            let Ok(file) = std::fs::metadata(file.path()) else { continue };
            if file.is_file()
                && file.nlink() == 0
                && on_disk(&file)
                && counted.insert((file.dev(), file.ino()))
            {
                *found.entry(container.clone()).or_default() += file.blocks() * 512;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A `/proc` of one process that has these files open.
    fn process(proc: &Path, pid: &str, group: &str, files: &[&std::fs::File]) {
        use std::os::fd::AsRawFd as _;
        let process = proc.join(pid);
        std::fs::create_dir_all(process.join("fd")).unwrap();
        std::fs::write(process.join("cgroup"), format!("0::/docker/{group}/x\n")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root", process.join("root")).unwrap();
        for (at, file) in files.iter().enumerate() {
            let open = format!("/proc/self/fd/{}", file.as_raw_fd());
            std::os::unix::fs::symlink(open, process.join("fd").join(at.to_string())).unwrap();
        }
    }

    #[test]
    fn only_what_is_deleted_and_open_counts_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![1; 1 << 20]).unwrap();
            (std::fs::File::open(&path).unwrap(), path)
        };
        let (kept, _) = make("kept");
        let (gone, path) = make("gone");
        std::fs::remove_file(path).unwrap();
        let memory = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let memory = std::fs::File::from(memory);
        std::io::Write::write_all(&mut &memory, &vec![1; 1 << 20]).unwrap();
        let proc = folder.path().join("proc");
        process(&proc, "1", "first", &[&kept, &gone, &memory]);
        process(&proc, "2", "first", &[&gone]);
        process(&proc, "3", "other", &[&gone]);
        process(&proc, "self", "second", &[&gone]);
        process(&proc, "4", "second", &[&kept]);
        let ids = ["first".to_owned(), "second".to_owned()];
        let device = std::fs::metadata(folder.path()).unwrap().dev();
        let soon = Instant::now() + Duration::from_secs(60);
        let found = count(&proc, &ids, device, soon);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["first"]);
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&found["first"]), "{found:?}");
        assert!(count(&proc, &ids, device, Instant::now()).is_empty());
    }
}

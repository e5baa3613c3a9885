//! Disks of the host.

use std::fs::FileType;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;
use rustix::fs::{CWD, Mode, mknodat};

use super::opening::{Opening, for_reading};
use super::target::{self, Disk};
use super::{Facts, Finding, private};

/// A node that was made, and is removed with this value.
struct Node(PathBuf);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes a node of the disk in the first folder that takes one.
fn make(disk: &Disk) -> Result<Node, String> {
    let name = format!(".wolfpack-probe-{}", std::process::id());
    let device = rustix::fs::makedev(disk.major, disk.minor);
    let mut refusals = Vec::new();
    for folder in target::folders() {
        let path = folder.join(&name);
        let kind = rustix::fs::FileType::BlockDevice;
        match mknodat(CWD, &path, kind, Mode::RUSR, device) {
            Ok(()) => return Ok(Node(path)),
            Err(errno) => refusals.push(format!("{}: {errno}", folder.display())),
        }
    }
    Err(refusals.join(", "))
}

pub(super) fn mknod(_: &Facts) -> Finding {
    each_disk(|disk| {
        let words = format!("{} ({}:{})", disk.name, disk.major, disk.minor);
        match make(disk) {
            Err(why) => Finding::blocked(format!("no node of {words} can be made: {why}")),
            Ok(node) => match for_reading(&node.0) {
                Opening::Opened => {
                    Finding::allowed(format!("a node of {words} was made and opens"))
                }
                Opening::Absent => {
                    Finding::unknown(format!("a node of {words} was made and vanished"))
                }
                Opening::Refused(why) => Finding::blocked(format!(
                    "a node of {words} can be made and does not open: {why}"
                )),
            },
        }
    })
}

/// The first that is not blocked decides, else the first one's evidence stands
/// for all.
fn each_disk(mut ask: impl FnMut(&Disk) -> Finding) -> Finding {
    let mut first = None;
    let mut count = 0;
    for disk in target::disks() {
        let finding = ask(&disk);
        if finding.verdict != super::Verdict::Blocked {
            return finding;
        }
        count += 1;
        first.get_or_insert(finding.evidence);
    }
    match first {
        Some(evidence) => Finding::blocked(format!("{evidence} ({count} disks alike)")),
        None => Finding::unknown("the kernel names no disk in /sys/block and /proc/partitions"),
    }
}

pub(super) fn nodes(_: &Facts) -> Finding {
    let nodes = block_nodes(Path::new("/dev"));
    if nodes.is_empty() {
        return Finding::blocked("no block device is in /dev");
    }
    let mut evidence = Vec::new();
    for node in &nodes {
        match for_reading(node) {
            Opening::Opened => return Finding::allowed(format!("{} opens", node.display())),
            Opening::Absent => {}
            Opening::Refused(why) => evidence.push(format!("{}: {why}", node.display())),
        }
    }
    Finding::blocked(evidence.join("; "))
}

/// Block devices in a folder and the folders in it, at most this many.
fn block_nodes(folder: &Path) -> Vec<PathBuf> {
    const MOST: usize = 64;
    let kind = |entry: &std::fs::DirEntry, test: fn(&FileType) -> bool| {
        entry.file_type().is_ok_and(|kind| test(&kind))
    };
    let list = |folder: &Path| -> Vec<std::fs::DirEntry> {
        std::fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_default()
    };
    let mut found = Vec::new();
    for entry in list(folder) {
        if kind(&entry, FileType::is_block_device) {
            found.push(entry.path());
        } else if kind(&entry, FileType::is_dir) {
            let inner = list(&entry.path()).into_iter();
            found.extend(inner.filter(|e| kind(e, FileType::is_block_device)).map(|e| e.path()));
        }
    }
    found.truncate(MOST);
    found
}

/// Asks for a mount of the disk by a kind of file system that only reads and
/// that it does not hold: a kernel that gets as far as looking at the disk
/// would have mounted it by the right kind.
pub(super) fn mount(_: &Facts) -> Finding {
    let kind = target::harmless_file_system();
    let Some(at) = target::directory() else {
        return Finding::unknown("no directory to mount on");
    };
    each_disk(|disk| mount_one(disk, kind.as_deref(), &at))
}

fn mount_one(disk: &Disk, kind: Option<&str>, at: &Path) -> Finding {
    let made = make(disk);
    let there = block_nodes(Path::new("/dev")).into_iter().next();
    let Some(node) = made.as_ref().ok().map(|node| node.0.clone()).or(there) else {
        let why = made.err().unwrap_or_default();
        return Finding::blocked(format!("no node of a disk is there or can be made: {why}"));
    };
    // Who may mount nothing mounts no disk, whatever the kernel could read.
    let Some(kind) = kind else {
        drop(made);
        return match private::mounts(false, || ()) {
            Err(private::Refused(why)) => Finding::blocked(why),
            Ok(()) => Finding::unknown(
                "the kernel has no file system that only reads, so asking for a mount might write",
            ),
        };
    };
    let tried = private::mounts(false, || {
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mounted = nix::mount::mount(Some(&node), at, Some(kind), flags, None::<&str>);
        if mounted.is_ok() {
            let _ = nix::mount::umount(at);
        }
        mounted
    });
    drop(made);
    match tried {
        Err(private::Refused(why)) => Finding::blocked(why),
        Ok(answer) => judge_mount(disk, kind, answer),
    }
}

fn judge_mount(disk: &Disk, kind: &str, answer: nix::Result<()>) -> Finding {
    let asked = format!("mount of {} as {kind}", disk.name);
    match answer {
        Ok(()) => Finding::allowed(format!("{asked}: it was mounted")),
        Err(errno @ (Errno::EINVAL | Errno::EBUSY | Errno::EUCLEAN | Errno::EIO)) => {
            Finding::allowed(format!("{asked}: the kernel looked at the disk ({})", errno.desc()))
        }
        Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
            Finding::blocked(format!("{asked}: {}", errno.desc()))
        }
        Err(errno) => Finding::unknown(format!("{asked}: {}", errno.desc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Verdict;

    #[test]
    fn a_kernel_that_looked_at_the_disk_would_have_mounted_it() {
        let disk = Disk { name: "vda".into(), major: 254, minor: 0 };
        let verdict = |answer| judge_mount(&disk, "squashfs", answer).verdict;
        assert_eq!(verdict(Ok(())), Verdict::Allowed);
        assert_eq!(verdict(Err(Errno::EINVAL)), Verdict::Allowed);
        assert_eq!(verdict(Err(Errno::EBUSY)), Verdict::Allowed);
        assert_eq!(verdict(Err(Errno::EPERM)), Verdict::Blocked);
        assert_eq!(verdict(Err(Errno::ENODEV)), Verdict::Unknown);
    }
}
